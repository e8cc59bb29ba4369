"""What is shown of a result: terminal, CSV, JSON, Markdown and pictures read a View and nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lossprobe.analysis.findings.engine import findings_of, located
from lossprobe.analysis.shown import Tabled
from lossprobe.display import to_html
from lossprobe.plain_table import Table
from lossprobe.report.names import in_words, windows_in_words
from lossprobe.run.names import names_with_folders

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from lossprobe.analysis.findings.rule import RuleFinding
    from lossprobe.logs.log import Log
    from lossprobe.run.reader import Run


FINDINGS = "findings"  # the view whose result is what rules tell
# Rules that say what the finding of their own view says already.
IN_FINDING = frozenset({"second-worse", "second-better", "second-worse-by-byte", "second-better-by-byte"})


class Result(Protocol):
    """What every result of an analysis has; it is a frozen dataclass, and JSON holds its fields."""

    @property
    def table(self) -> pd.DataFrame:
        """The numbers, in rows."""

    @property
    def finding(self) -> str:
        """What they say, in one line."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader must know, one line each."""


@dataclass(frozen=True)
class View:
    """A result and what is shown of it.

    Attributes:
        name: the command's name, which names its files and its picture too.
        heading: what the result is about.
        result: table, finding and notes.
        runs: the runs that it was made from, the first one first; none where it was made from something else.
        csv: makes the CSV, piece by piece; None for that of `result.table`.
        lines: what stands below the table for people, after the finding.
        left_out: columns that the table for people leaves to the CSV and `--wide`.
        yields: columns that the tables for people leave out too where they are wider than the terminal, the first one
            first: the least important one.
        shown: the table for people; None for `result.table`.
        more: further tables below the lines, each with its heading.
        brief: what a terminal shows instead of all tables, each after its heading, the first one without one; None for
            all of them.
        inputs: texts that the runs do not name, never to be written over.
        findings: the finding in lines for people, such as one a model; none for the finding as it is. One that begins
            with blanks keeps them where it wraps, and an empty one is a gap on a terminal.
        logs: the training logs that it was made from, where that is no run.
    """

    name: str
    heading: str
    result: Result
    runs: tuple[Run, ...] = ()
    csv: Callable[[], Iterable[bytes]] | None = None
    lines: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    yields: tuple[str, ...] = ()
    shown: Table | None = None
    more: tuple[tuple[str, Table], ...] = ()
    brief: tuple[tuple[str, Table], ...] | None = None
    inputs: tuple[Path, ...] = ()
    findings: tuple[str, ...] = ()
    logs: tuple[Log, ...] = ()

    @property
    def title(self) -> str:
        """The first line of a page."""
        return f"{self.name}: {self.heading}"

    @property
    def rows(self) -> Table:
        """The result's table, in plain columns where it has them."""
        return self.result.rows if isinstance(self.result, Tabled) else self.result.table

    @property
    def whole_table(self) -> Table:
        """The table for people with all its columns."""
        return self.rows if self.shown is None else self.shown

    @property
    def columns_left_out(self) -> list[str]:
        """Those of the columns `left_out` that the table has."""
        return [name for name in self.left_out if name in self.whole_table]

    @property
    def people_table(self) -> Table:
        """The table for people."""
        return self.whole_table.drop(columns=self.columns_left_out)

    @property
    def people_tables(self) -> tuple[tuple[str, Table], ...]:
        """What a terminal shows: each table after its heading; the first one has none."""
        return (("", self.people_table), *self.more) if self.brief is None else self.brief

    @property
    def all_tables(self) -> tuple[tuple[str, Table], ...]:
        """All tables with all columns, each after its heading; the first one has none."""
        return (("", self.whole_table), *self.more)

    @property
    def people_lines(self) -> list[str]:
        """What stands beside the tables for people: the finding, what rules tell, the view's own lines, the notes."""
        return [*self.finding_lines, *self.lines_below]

    @property
    def finding_lines(self) -> list[str]:
        """The finding for people."""
        return list(self.findings or [self.result.finding])

    @property
    def lines_below(self) -> list[str]:
        """What stands below the tables: what the rules tell, the view's own lines, the notes."""
        return [*self._rules, *self.lines, *self._notes]

    @cached_property
    def told_by_rules(self) -> tuple[RuleFinding, ...]:
        """What the rules of this view tell of its result, the gravest first; nothing where the result holds them."""
        if self.name == FINDINGS:
            return ()
        return tuple(located(found, self.runs) for found in findings_of(self.name, self.result))

    @property
    def _rules(self) -> list[str]:
        return [found.told for found in self.told_by_rules if found.id not in IN_FINDING]

    @property
    def _notes(self) -> list[str]:
        return [f"note: {note}" for note in self.result.notes]

    @property
    def told(self) -> list[str]:
        """What is told where only data is printed: the finding, what rules tell, and the notes."""
        return [*filter(None, self.finding_lines), *self._rules, *self._notes]

    def _repr_html_(self) -> str:
        return to_html(self.title, [("", self.people_table), *self.more], self.people_lines)


def heading_of(*runs: Run) -> str:
    """Return models, texts and windows of runs in one line."""
    names = ", ".join(dict.fromkeys(map(in_words, names_with_folders(runs), runs)))
    return f"{names} on {text_heading(*runs)}"


def text_heading(*runs: Run) -> str:
    """Return the texts, context and windows of runs in one line."""
    texts = ", ".join(dict.fromkeys(run.text_name for run in runs))
    windows = " and ".join(dict.fromkeys(windows_in_words(run) for run in runs))
    return f"{texts} ({windows})"


def view_of_runs(name: str, runs: Sequence[Run], result: Result, **shown: Any) -> View:
    """Return the view of a result that was made from runs, under their heading.

    Args:
        name: the command's name.
        runs: what the result was made from.
        result: the result.
        shown: other attributes of the view, such as another heading.
    """
    return View(name, shown.pop("heading", None) or heading_of(*runs), result, tuple(runs), **shown)


def draw(view: View) -> Figure:
    """Return the view's picture: `report.plots.NAME.plot_NAME`."""
    module = importlib.import_module(f"lossprobe.report.plots.{view.name}")  # slow to load, and rarely needed
    from lossprobe.report.fonts import use_system_fonts
    from lossprobe.report.pictures import default_style
    from lossprobe.report.style import tell_kinds

    with default_style():
        figure: Figure = getattr(module, f"plot_{view.name}")(view.logs or view.runs[0], view.result)
        tell_kinds(figure, view.runs)
        use_system_fonts(figure)
    return figure
