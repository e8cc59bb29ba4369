"""Checkpoints of one training run on one text: what was learned and forgotten, and when."""
