"""Open the checkpoints of each model family: one file per family."""
