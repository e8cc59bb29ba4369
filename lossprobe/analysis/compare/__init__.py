"""Two models on the same text."""
