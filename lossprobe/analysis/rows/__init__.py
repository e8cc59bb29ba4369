"""SQL over the rows of one run or of several."""
