"""Entry points for Python and notebooks: paths in, a run or a view out."""
