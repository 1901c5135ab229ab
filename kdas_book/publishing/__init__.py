"""Running the chapters and rendering them to a site or a PDF file."""
