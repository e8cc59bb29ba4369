"""Writes the generated parts of the pages in FOLDER again: `python -m lossprobe.cli.reference FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from lossprobe.cli.reference.pages import filled, parts

if __name__ == "__main__":
    made = parts()
    for file in sorted(Path(sys.argv[1]).glob("*.md")):
        file.write_text(filled(file.read_text("utf-8"), made), "utf-8")
