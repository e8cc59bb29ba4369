"""The options that name files for results, and what a name of such a file ends in."""

SUFFIXES = {"--csv": (".csv",), "--plot": (".png", ".svg", ".pdf")}
DEFAULT_FILE = "\0default"  # means a file named after the command; no real file name contains a NUL
