"""Formats: writes views as CSV, JSON, Markdown and terminal text."""
