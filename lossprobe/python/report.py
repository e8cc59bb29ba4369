"""`lossprobe.write_report`: one HTML page of everything that stored runs say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossprobe import __version__
from lossprobe.analysis.coloured_text.coloured_text import coloured_text
from lossprobe.analysis.coloured_text.options import ReportOptions
from lossprobe.analysis.once import Once
from lossprobe.analysis.provenance import find_provenance
from lossprobe.analysis.rows.same_tokens import refuse_different
from lossprobe.errors import LossprobeError, UsageError
from lossprobe.options.given import check_options
from lossprobe.python.view import ordered_series, view_of_runs
from lossprobe.report.formats.output import write_bytes
from lossprobe.report.page.page import page_to_html
from lossprobe.report.page.section import Exhibit, Page, Section
from lossprobe.report.views.provenance import provenance_view
from lossprobe.report.views.view import heading_of
from lossprobe.run.argument import check_runs
from lossprobe.run.names import distinct_names
from lossprobe.text.examples import DataKind
from lossprobe.units import plural

if TYPE_CHECKING:
    from lossprobe.run.reader import Run

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Wanted:
    """A view that a page is to have.

    Attributes:
        name: the view, as `lossprobe.view` takes it.
        title: its heading in its section; "" where it stands alone.
        choices: its options.
        pictured: whether its picture is drawn.
    """

    name: str
    title: str = ""
    choices: tuple[tuple[str, Any], ...] = ()
    pictured: bool = False

    @property
    def command(self) -> str:
        """The command that prints it of the latest run."""
        return " ".join([f"lossprobe {self.name}", *(f"--{name} {value}" for name, value in self.choices)])


def by(what: str) -> tuple[tuple[str, Any], ...]:
    """Return the choices of a view by a slice."""
    return (("by", what),)


@dataclass(frozen=True)
class Asked:
    """A section that a page is to have: its id, title and views."""

    id: str
    title: str
    views: tuple[Wanted, ...]


FINDINGS = Asked("findings", "Findings", (Wanted("findings"),))
DEFECTS = Asked("defects", "Defects of the text", (Wanted("defects"),))
NUMBERS = Asked("numbers", "Headline numbers", (Wanted("perplexity"),))
ROLES = Asked("roles", "Turns and roles", tuple(
    Wanted("perplexity", f"By {what}", by(what)) for what in ("role", "part", "turn")))  # fmt: skip
PREFERENCES = Asked("preferences", "Preferences", (Wanted("preferences", pictured=True),))
POSITIONS = Asked("positions", "Loss by context", (Wanted("positions", pictured=True),))
HARDEST = Asked("hardest", "Hardest", (
    Wanted("hardest", "Tokens", by("token")), Wanted("hardest", "Vocabulary entries", by("type")),
    Wanted("hardest", "Documents", by("document")), Wanted("hardest", "Classes", by("class"), pictured=True),
))  # fmt: skip
CALIBRATION = Asked("calibration", "Calibration", (Wanted("calibration", pictured=True),))
OBJECTIVES = Asked("objectives", "Other losses", (Wanted("objectives"),))
COMPARE = Asked("compare", "The difference", (
    Wanted("compare", "By class", by("class"), pictured=True), Wanted("compare", "By document", by("document")),
    Wanted("compare", "Tokens that changed most", by("token")),
))  # fmt: skip
SERIES = Asked("series", "Over training", (Wanted("series", "By class", by("class"), pictured=True),))
MOST_STEPS = 20  # of a series that the text is shown at: a byte a token each
TAKES_ALL = (
    "findings",
    "compare",
    "calibration",
    "series",
)  # of all runs; of the others each has one


def write_report(path: str | Path, *runs: Run, max_tokens: int = ReportOptions.max_tokens) -> None:
    """Write a page of everything that stored runs say; see `make_report`.

    Args:
        path: the HTML file, which is replaced if it is there; "-" is standard output.
        runs: one run or more, on one text.
        max_tokens: most tokens of the text that the page shows.

    Raises:
        UsageError: no run is given.
        NotComparableError: the runs differ in text, tokenizer, windows or BOS.
        OutputError: the file cannot be written.

    Example:
        >>> write_report("report.html", run)  # doctest: +SKIP
    """
    write_bytes(str(path), page_to_html(make_report(*runs, options=ReportOptions(max_tokens))))


def make_report(*runs: Run, options: ReportOptions | None = None, progress: Progress | None = None) -> Page:
    """Return a page of everything that stored runs say, to be written by `report.page.page.page_to_html`.

    Of one run: its numbers, positions, hardest tokens, calibration and other losses, and turns and roles where it has
    them. Of two runs on one text also their difference; of more, in the order of training, what was learned when.

    Args:
        runs: one run or more, on one text.
        options: how much of the text is shown; None for the defaults.
        progress: told before each section how many are made, and how many there are; None for nobody.

    Raises:
        UsageError: no run is given.
        NotComparableError: the runs differ in text, tokenizer, windows or BOS; nothing is measured then.
    """
    for run in runs:
        check_runs(runs=run)
    if not runs:
        raise UsageError("argument.unknown", "a report takes one run or more, not 0")
    refuse_different(runs)
    options = options or ReportOptions()
    check_options(ReportOptions, **vars(options))
    runs = _in_order(runs)
    wanted, sections, once = list(_asked(runs)), list[Section](), Once()
    for asked in wanted:
        if progress is not None:
            progress(len(sections), len(wanted))
        sections.append(_section(asked, runs, once))
    sections.append(
        Section("provenance", "Where it came from", (Exhibit("", provenance_view(runs, find_provenance(runs))),))
    )
    counts = runs[0].counts
    size = f"{counts['scored_tokens']:,} scored tokens in {plural(counts['documents'], 'document')}"
    other = runs[-1] if len(runs) > 1 else None
    text = coloured_text(runs[0], other, options.max_tokens, _steps(runs) if len(runs) > 2 else None)
    return Page(heading_of(*runs), size, tuple(sections), f"lossprobe {__version__}", text, NUMBERS.id)


def _in_order(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """Return three runs or more in the order of their steps; one or two as they are."""
    return ordered_series(runs)[0] if len(runs) > 2 else runs


def _steps(runs: tuple[Run, ...]) -> dict[str, Run]:
    """Return the runs of a series by the names of their steps, in order; of many, these at equal distances."""
    order = ordered_series(runs)[1]
    chosen = sorted({round(at * (len(runs) - 1) / (MOST_STEPS - 1)) for at in range(MOST_STEPS)})
    return {f"{order.unit} {order.steps[at]:,}": runs[at] for at in chosen}


def _asked(runs: Sequence[Run]) -> Iterator[Asked]:
    """Yield the sections of a page, in order."""
    yield FINDINGS
    if len(runs) == 2:
        yield COMPARE
    if len(runs) > 2:
        yield SERIES
    yield NUMBERS
    kind = runs[-1].settings.text.kind
    if kind == DataKind.PAIRS:
        yield PREFERENCES
    if kind is not None:
        yield ROLES
    yield from (POSITIONS, HARDEST, DEFECTS, CALIBRATION, OBJECTIVES)


def _section(asked: Asked, runs: Sequence[Run], once: Once) -> Section:
    """Return a section; a view that these runs cannot have is replaced by the reason in one line."""
    exhibits, missing = [], []
    shown = _shown(runs)
    for wanted in asked.views:
        groups = [("", tuple(runs))] if wanted.name in TAKES_ALL else shown
        for name, group in groups:
            title = ", ".join(filter(None, (wanted.title, name)))
            try:
                made = view_of_runs(wanted.name, group, dict(wanted.choices), once)
            except LossprobeError as error:
                missing.append(f"{title or asked.title}: not shown, because {error.message}{_hint(error)}")
            else:
                exhibits.append(Exhibit(title, made, wanted.pictured, wanted.command if len(runs) == 1 else ""))
    return Section(asked.id, asked.title, tuple(exhibits), tuple(missing))


def _hint(error: LossprobeError) -> str:
    return f"; {error.hint}" if error.hint else ""


def _shown(runs: Sequence[Run]) -> list[tuple[str, tuple[Run]]]:
    """Return the runs that get views of their own, with their names: one or two, of a series the last one."""
    if len(runs) == 1:
        return [("", (runs[0],))]
    named = list(zip(distinct_names(runs), runs, strict=True))
    return [(name, (run,)) for name, run in (named if len(runs) == 2 else named[-1:])]
