"""One file and one `plot_COMMAND` a view: numbers in, matplotlib Figure out. Draws what the result holds, no more."""

import lossprobe.report.pictures  # noqa: F401 - matplotlib without configuration, before any plot imports it
