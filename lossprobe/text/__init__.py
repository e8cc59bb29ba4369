"""Texts: files, folders, streams and strings become documents, whose bytes, characters and words are counted."""
