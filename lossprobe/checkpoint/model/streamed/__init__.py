"""Run models whose weights are larger than memory: one layer after the other is read while all windows wait for it."""
