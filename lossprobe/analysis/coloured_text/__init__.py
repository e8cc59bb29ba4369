"""The text of a run with what was measured for each token, packed for a page."""
