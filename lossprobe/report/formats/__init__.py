"""Tables as CSV, JSON, Markdown and terminal text."""
