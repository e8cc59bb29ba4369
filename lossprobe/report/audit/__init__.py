"""Writes the result of an audit as text, Markdown, JSON, JUnit XML and GitHub annotations."""
