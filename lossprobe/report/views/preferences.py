"""How a model ranks pairs of answers: groups, losses, the pairs ranked most wrongly."""

from __future__ import annotations

import pandas as pd

from lossprobe.analysis.preferences.preferences import REWARD, Preferences
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run

YIELDS = (
    "record_source", "kind", "ties", "logp_margin_nats",
    "per_token_high", "per_token_low", "reward_high", "reward_low", "record_id", "prompt_end", "convention",
)  # fmt: skip
BY = {REWARD: "implicit reward", "logp_margin_per_token_nats": "log-probability per token"}


def preferences_view(runs: tuple[Run, ...], result: Preferences) -> View:
    """Return the view of how a model ranks pairs; the run of the reference comes second where there is one."""
    return view_of_runs("preferences", runs, result, shown=result.groups, yields=YIELDS, more=_more(result))


def _more(result: Preferences) -> tuple[tuple[str, pd.DataFrame], ...]:
    """Return the tables of losses and of the pairs ranked most wrongly."""
    losses = ("losses, means over the ranked pairs", result.losses)
    if not len(result.worst):
        return (losses,)
    worst = result.worst.drop(columns=["pair", "chosen_tokens", "rejected_tokens"])
    return losses, (f"pairs ranked most wrongly, by the {BY[result.ranked_by]}", worst)
