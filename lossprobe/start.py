"""Starts the command line: Ctrl-C while its modules are imported ends it quietly, with the exit code of Ctrl-C."""

from __future__ import annotations

TYPE_CHECKING = False  # nothing is imported before `main` can catch what Ctrl-C raises
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with the documented code; see `cli.main`."""
    try:
        from lossprobe.cli.main import main as command

        command()
    except KeyboardInterrupt:  # of what it stops after the imports, the command itself tells
        raise SystemExit(130) from None
