"""The passes: each takes a checkpoint and a text, and stores what it measures."""
