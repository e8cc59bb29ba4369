"""What is scored: bytes to documents to token windows. Integers only."""
