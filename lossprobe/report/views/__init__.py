"""What each command shows of its result: one file a view, result → View."""
