"""Imports matplotlib without foreign configuration; every module that draws imports this one first.

By default matplotlib reads `matplotlibrc` from the working folder and other places, which can change every picture and
start any program called `latex`. An environment variable names the folder of its cached list of fonts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lossprobe.errors import OutputError
from lossprobe.isolation import private_folder, unconfigured

_folder = private_folder("matplotlib")
_given = {"MPL_IGNORE_SYSTEM_FONTS": "1"} | ({} if _folder is None else {"MPLCONFIGDIR": str(_folder)})
try:
    with unconfigured("MPL", "MATPLOTLIB", file="matplotlibrc", **_given):
        import matplotlib
        import matplotlib.font_manager
except OSError as error:  # matplotlib needs a folder that it can write
    raise OutputError(
        "output.no_folder",
        f"a picture needs a folder for its list of fonts, and none can be written: {error.strerror or 'no such place'}",
        hint="set HOME or TMPDIR to a folder that you can write; tables, CSV and JSON need none",
    ) from None


@contextmanager
def default_style() -> Iterator[None]:
    """Use matplotlib's default style inside the block, even if the calling program has set another style."""
    defaults: Any = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    with matplotlib.rc_context(defaults):
        yield
