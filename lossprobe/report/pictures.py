"""matplotlib, with no configuration but ours: every module that draws imports this one before it.

Left alone, matplotlib reads `matplotlibrc` of the working folder and of other places, which changes every picture and
can start whatever is called `latex`; and its list of fonts is kept in a folder that a variable names.
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
except OSError as error:  # it cannot do without a folder for itself
    raise OutputError(
        "output.no_folder",
        f"a picture needs a folder for its list of fonts, and none can be written: {error.strerror or 'no such place'}",
        hint="set HOME or TMPDIR to a folder that you can write; tables, CSV and JSON need none",
    ) from None


@contextmanager
def default_style() -> Iterator[None]:
    """Draw in the block with matplotlib's own defaults, also in a program that has set others for its own pictures."""
    defaults: Any = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    with matplotlib.rc_context(defaults):
        yield
