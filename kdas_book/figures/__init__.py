"""The figures of the book: what one chapter draws stands in its own file; ``basics`` is shared."""
