"""Loss by context: the curve's rows and the fit below them."""

from __future__ import annotations

from lossprobe.analysis.positions import PositionLosses
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run

YIELDS = ("clusters", "context_last", "position_last")


def positions_view(run: Run, result: PositionLosses) -> View:
    """Return the view of losses by position."""
    return view_of_runs("positions", [run], result, lines=_fit_lines(result), yields=YIELDS)


def _fit_lines(result: PositionLosses) -> tuple[str, ...]:
    fit = result.fit
    if fit is None:
        return ()
    values = (
        ("a", fit.a_nats, fit.a_nats_interval),
        ("b", fit.b_nats, fit.b_nats_interval),
        ("alpha", fit.alpha, fit.alpha_interval),
    )
    text = ", ".join(f"{name} {value:.3f} {interval.shown('.3f')}" for name, value, interval in values)
    runs = f"{fit.residual_runs} runs of residuals, {fit.residual_runs_expected:.1f} expected of a good fit"
    return (f"descriptive fit a + b (t + 1)^-alpha: {text}; {runs}",)
