"""`lossprobe.view` and `lossprobe.plot`: what a command shows of runs, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossprobe.analysis.once import Once
from lossprobe.arguments import wrong_type
from lossprobe.errors import UsageError
from lossprobe.options.kinds import nearest
from lossprobe.python.score import chosen
from lossprobe.report.formats.terminal import view_to_terminal
from lossprobe.report.views.view import View, draw
from lossprobe.run.argument import check_runs
from lossprobe.run.reader import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lossprobe.logs.checkpoint_order import StepOrder

NAMES = (
    "calibration", "compare", "curve", "defects", "findings", "gap", "hardest", "objectives", "perplexity", "positions",
    "preferences", "reconcile", "series", "tokens",
)  # fmt: skip
# Of the views that do not take exactly one run: the fewest and most that they take, in words too.
RUNS = {
    "calibration": (1, None, "one run or more"),
    "compare": (2, 2, "two runs"),
    "findings": (1, None, "one run or more"),
    "gap": (2, 2, "two runs"),
    "preferences": (1, 2, "one run, or two with that of a reference"),
    "series": (2, None, "two runs or more"),
}


class PrintedView(View):
    """A view that `print` prints as a terminal shows it."""

    def __str__(self) -> str:
        return view_to_terminal(self)


def view(name: str, *runs: Run | str | Path, **choices: Any) -> View:
    """Return what a command shows of stored runs or training logs: table, finding and notes, for a notebook.

    Args:
        name: the command: "calibration", "compare", "curve", "defects", "findings", "gap", "hardest", "objectives",
            "perplexity", "positions", "preferences", "reconcile", "series" or "tokens".
        runs: two for compare (A, B) and gap (training text, validation text), two or more for series, one or more for
            calibration and findings, one for preferences or two with that of the reference, else one. Those of
            preferences hold both sides of the pairs: `lossprobe.score(…, both_sides=True)`. For curve one or more paths
            of training logs.
        choices: the command's options, by the names that `measure_…`, `ObjectiveOptions`, `PreferenceOptions` and
            `CurveOptions` have: `by="class"`. reconcile takes `logged`, the number as the log prints it, or `log`, with
            `step` and `metric`.

    Raises:
        WrongTypeError: something else than a run, or a path for curve, is given.
        UsageError: an unknown name, or another number of runs.
        TypeError: an option that the analysis does not have.

    Examples:
        >>> view("hardest", run, by="type")  # doctest: +SKIP
        >>> view("curve", "trainer_state.json")  # doctest: +SKIP
    """
    if name not in NAMES:
        raise UsageError("argument.unknown", f"`name` {name!r} is no view", hint=nearest(str(name), NAMES) or _names())
    if name == "curve":
        return _printed(_view_of_logs(runs, choices))
    return _printed(view_of_runs(name, runs, choices, Once()))


def _printed(shown: View) -> PrintedView:
    return PrintedView(**{field.name: getattr(shown, field.name) for field in fields(shown)})


def _view_of_logs(logs: tuple[Any, ...], choices: dict[str, Any]) -> View:
    from lossprobe.analysis.curve.curve import curve
    from lossprobe.analysis.options import CurveOptions
    from lossprobe.logs.read import read_log
    from lossprobe.report.views.curve import curve_view

    for given in logs:
        if not isinstance(given, (str, Path)):
            raise wrong_type("runs", "paths of training logs", given, 'lossprobe.view("curve", "trainer_state.json")')
    if not logs:
        raise UsageError("argument.unknown", "curve takes one training log or more, not 0")
    options = chosen("choices", CurveOptions, CurveOptions(**choices), choices)
    read = [read_log(Path(path), options.columns) for path in logs]
    return curve_view(read, curve(read, options))


def view_of_runs(name: str, runs: tuple[Any, ...], choices: dict[str, Any], once: Once) -> View:
    """Return the view of runs as `view` does, of a result that may have been made for another view already.

    Args:
        name: the command, any but "curve".
        runs: the runs.
        choices: the command's options.
        once: keeps the results of views that are made together.

    Raises:
        WrongTypeError: something else than a run is given.
        UsageError: another number of runs, or an option that is refused.
    """
    for given in runs:
        if isinstance(given, (list, tuple)):
            raise wrong_type("runs", "runs one by one", given, f'lossprobe.view("{name}", *runs)')
        check_runs(runs=given)
    fewest, most, needs = RUNS.get(name, (1, 1, "one run"))
    if len(runs) < fewest or (most is not None and len(runs) > most):
        raise UsageError("argument.unknown", f"{name} takes {needs}, not {len(runs)}")
    made = _view_of_several if name in RUNS else _view_of_one
    return made(name, runs, choices, once)


def _names() -> str:
    return f"there are {', '.join(NAMES)}"


def plot(shown: View) -> Figure:
    """Return the picture of a view, as `--plot` draws it.

    Raises:
        WrongTypeError: something else than a view is given.
    """
    if not isinstance(shown, View):
        raise wrong_type("shown", 'a view, such as lossprobe.view("calibration", run)', shown)
    figure = draw(shown)
    # A notebook knows how to show a figure only where pyplot was loaded, and this one is made without it.
    setattr(figure, "_repr_png_", partial(_png, figure))  # noqa: B010
    return figure


def _png(figure: Figure) -> bytes:
    from lossprobe.report.pictures import default_style

    sink = BytesIO()
    with default_style():
        figure.savefig(sink, format="png")
    return sink.getvalue()


def ordered_series(runs: Sequence[Run]) -> tuple[tuple[Run, ...], StepOrder]:
    """Return runs in the order of the steps of their checkpoints, and that order."""
    from lossprobe.logs.checkpoint_order import order_by_step
    from lossprobe.run.names import place_of

    order = order_by_step([place_of(run) or Path(run.name) for run in runs])
    return tuple(runs[at] for at in order.order), order


def _view_of_several(name: str, runs: tuple[Run, ...], choices: dict[str, Any], once: Once) -> View:
    if name == "calibration":
        from lossprobe.analysis.calibration.calibration import measure_calibration
        from lossprobe.report.views.calibration import calibration_view

        return calibration_view(runs, once(measure_calibration, runs, **choices, once=once))
    if name == "findings":
        from lossprobe.analysis.findings.findings import find_findings
        from lossprobe.analysis.findings.options import FindingOptions
        from lossprobe.report.views.findings import findings_view

        return findings_view(runs, find_findings(runs, FindingOptions(**choices), once=once))
    if name == "preferences":
        from lossprobe.analysis.options import PreferenceOptions
        from lossprobe.analysis.preferences.preferences import measure_preferences
        from lossprobe.report.views.preferences import preferences_view

        options = chosen("choices", PreferenceOptions, PreferenceOptions(**choices), choices)
        reference = runs[1] if len(runs) > 1 else None
        return preferences_view(runs, once(measure_preferences, runs[0], reference, options))
    if name == "series":
        from lossprobe.analysis.options import SeriesOptions
        from lossprobe.analysis.series.series import measure_series
        from lossprobe.report.views.series import series_view

        in_order, order = ordered_series(runs)
        return series_view(in_order, measure_series(in_order, order, SeriesOptions(**choices)))
    first, second = runs
    if name == "gap":
        from lossprobe.analysis.gap.gap import measure_gap
        from lossprobe.report.views.gap import gap_view

        return gap_view(first, second, measure_gap(first, second, **choices))
    from lossprobe.analysis.compare.compare import compare
    from lossprobe.report.views.compare import compare_view

    return compare_view(runs, once(compare, first, second, **choices, once=once))


def _view_of_one(name: str, runs: tuple[Run, ...], choices: dict[str, Any], once: Once) -> View:
    (run,) = runs
    if name == "defects":
        from lossprobe.analysis.defects.defects import find_defects
        from lossprobe.analysis.defects.options import DefectOptions
        from lossprobe.report.views.defects import defects_view

        options = chosen("choices", DefectOptions, DefectOptions(**choices), choices)
        return defects_view(run, once(find_defects, run, options))
    if name == "hardest":
        from lossprobe.analysis.hardest import find_hardest
        from lossprobe.report.views.hardest import hardest_view

        return hardest_view(run, once(find_hardest, run, **choices))
    if name == "objectives":
        from lossprobe.analysis.objectives.formulas import ObjectiveOptions
        from lossprobe.analysis.objectives.objectives import measure_objectives
        from lossprobe.report.views.objectives import objectives_view

        return objectives_view(run, once(measure_objectives, run, ObjectiveOptions(**choices)), "all")
    if name == "perplexity":
        from lossprobe.analysis.perplexity import measure_perplexity
        from lossprobe.report.views.perplexity import perplexity_view

        return perplexity_view(run, once(measure_perplexity, run, **choices))
    if name == "positions":
        from lossprobe.analysis.positions import measure_positions
        from lossprobe.report.views.positions import positions_view

        return positions_view(run, once(measure_positions, run, **choices))
    if name == "reconcile":
        from lossprobe.analysis.options import ReconcileOptions
        from lossprobe.analysis.reconcile.logged_value import find_logged
        from lossprobe.analysis.reconcile.stored import reconcile_run
        from lossprobe.report.views.reconcile import reconcile_view

        options = chosen("choices", ReconcileOptions, ReconcileOptions(**choices), choices)
        return reconcile_view(run, reconcile_run(run, find_logged(options, run.path), options.order))
    from lossprobe.analysis.tokens import measure_tokens
    from lossprobe.report.views.tokens import tokens_view

    where = choices.get("where", ())
    return tokens_view(run, once(measure_tokens, run, **choices), [where] if isinstance(where, str) else where)
