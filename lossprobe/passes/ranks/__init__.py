"""Scores with models whose layers are divided among processes of this machine (tensor parallelism)."""
