"""One file and one `plot_COMMAND` a view: numbers in, matplotlib Figure out. Draws what the result holds, no more."""
