"""The result of a series: loss against step, and what became of the tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from lossprobe.analysis.series.references import Reference
from lossprobe.analysis.shown import Shown


@dataclass(frozen=True)
class CheckpointSeries(Shown):
    """The checkpoints of a training run on one text, in the order of their steps.

    Intervals are 95 % delete-one jackknife-t intervals over documents (blocks in a single document).

    Attributes:
        by: None, "token", or what the slices are; see `groups`.
        state: which tokens are listed, and by which types and documents are ranked.
        learned_below: loss in nats below which a token counts as known at a checkpoint.
        unit: what `step` counts: "step", "epoch", or "checkpoint" where the checkpoints do not say.
        steps: step of each checkpoint.
        models: distinct names of the checkpoints.
        tokens: scored tokens.
        states: how many of them are in each state over the whole series: "learned" (below at the last checkpoint,
            never lost), "unstable" (below at the last one, lost in between), "forgotten" (below at some, not at the
            last), "never"; together `tokens`.
        known_from_start: learned tokens that were below at the first checkpoint already.
        forgettings: forgetting events: a token below at one checkpoint and not at the next.
        settled_at_step: the first checkpoint that no later one is better than beyond noise; None without a test.
        best_at_step: the checkpoint with the lowest loss.
        worse_at_end: whether the last checkpoint is worse than the best one beyond noise; None without a test.
        references: n-gram models of the text, and from which step on the checkpoints are better; empty where the text
            cannot be divided into parts.
        interval_unit: "document" or "block", and `clusters`, how many of them the intervals resample.
        table: one row per checkpoint: step, model, mean_loss_nats, low, high, difference_nats (loss − that of the
            checkpoint before, on the same tokens), difference_low, difference_high, p_holm (adjusted over all pairs of
            checkpoints), significant, nll_minus_entropy_nats (positive when over-confident), excess_low, excess_high,
            learned_share, unstable_share, forgotten_share, never_share (of the tokens, as if the series ended there),
            minus_unigram_nats, minus_bigram_nats (loss − that of the n-gram model; NaN without one).
        groups: with slices, one row each: group (and kind, token_id, source, line, begins, …), tokens, learned_share,
            unstable_share, forgotten_share, never_share, forgettings, median_step_learned (the step from which on half
            of its tokens are below for good; missing where fewer are at the end), first_loss_nats, last_loss_nats.
            Types and documents: the `top` ones with the most tokens of `state`. None without slices.
        curves: with slices, one row for each of these and each step: group (and kind), step, tokens, mean_loss_nats,
            low, high, clusters. None without slices.
        listed: by token, the `top` clearest tokens of `state`: document, token, text, context, state, learned_at_step,
            forgettings, first_loss_nats, last_loss_nats, lowest_loss_nats, lowest_at_step, before, characters, after,
            losses_nats (one for each checkpoint). None else.
        strip: consecutive tokens of one document: token, text, state ("" without a loss), learned_at_step.
        notes: what a reader must know, one line each.
    """

    by: str | None
    state: str
    learned_below: float
    unit: str
    steps: list[int]
    models: list[str]
    tokens: int
    states: dict[str, int]
    known_from_start: int
    forgettings: int
    settled_at_step: int | None
    best_at_step: int
    worse_at_end: bool | None
    references: list[Reference]
    interval_unit: str
    clusters: int
    table: pd.DataFrame = field(repr=False)
    groups: pd.DataFrame | None = field(repr=False)
    curves: pd.DataFrame | None = field(repr=False)
    listed: pd.DataFrame | None = field(repr=False)
    strip: pd.DataFrame = field(repr=False)
    notes: list[str]

    @property
    def threshold(self) -> str:
        """`learned_below` in words."""
        return f"{self.learned_below:g} nat{'s' * (self.learned_below != 1)}"

    @property
    def finding(self) -> str:
        """The result in one line."""
        first, last = self.table.iloc[0], self.table.iloc[-1]
        parts = [
            f"loss {first['mean_loss_nats']:.3f} → {last['mean_loss_nats']:.3f} nats from {self.unit} {self.steps[0]} "
            f"to {self.steps[-1]}",
            self._improvement(),
            "of the tokens "
            + ", ".join(f"{count / max(1, self.tokens):.1%} {worded(state)}" for state, count in self.states.items()),
        ]
        if self.references:
            bigram = self.references[-1]
            parts.append(
                f"not better than a bigram model ({bigram.mean_loss_nats:.3f} nats) at the end"
                if bigram.better_from_step is None
                else f"better than a bigram model ({bigram.mean_loss_nats:.3f} nats) from {self.unit} "
                f"{bigram.better_from_step} on"
            )
        return "; ".join(parts)

    def _improvement(self) -> str:
        if self.settled_at_step is None:
            return "no test of its improvement was possible"
        if self.worse_at_end:
            return f"best at {self.unit} {self.best_at_step}, and worse since beyond noise"
        if self.settled_at_step == self.steps[-1]:
            return "still improving at the last checkpoint"
        return f"nothing improves beyond noise after {self.unit} {self.settled_at_step}"


def worded(state: str) -> str:
    """Return a state as words that follow "tokens"."""
    return "never learned" if state == "never" else state
