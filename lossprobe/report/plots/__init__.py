"""Plots: each file has a function `plot_COMMAND` that draws the result of a command as a matplotlib Figure."""

import lossprobe.report.pictures  # noqa: F401 - must import matplotlib before any plot does; see there
