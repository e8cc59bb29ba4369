"""The code of the package as tests that read it see it: its files, each parsed once a process."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import lossprobe

PACKAGE = Path(lossprobe.__file__).parent
MODULES = [file for file in sorted(PACKAGE.rglob("*.py")) if "bundled" not in file.parts]


@functools.cache
def parsed(file: Path) -> ast.Module:
    """Return the syntax tree of a file; tests must not change it."""
    return ast.parse(file.read_text("utf-8"))


@functools.cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """Return every node of the syntax tree of a file, in the order of `ast.walk`."""
    return tuple(ast.walk(parsed(file)))
