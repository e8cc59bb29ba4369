"""Documents and a policy in, windows, rows and parts out: integers only."""
