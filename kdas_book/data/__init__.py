"""Data tools: fetching, checking, importing and drawing polyp images."""
