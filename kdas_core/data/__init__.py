"""Polyp images and masks: where files lie, how they are read, and what a network sees (chapter 1)."""
