"""What the results of views say in plain words: declared rules, and one engine that decides which of them speak."""
