"""How far two models are apart on a text: KL divergence, top-1 agreement, and change of the tokens' probabilities.

The measures are those that quantized models are compared by: the divergence KL(A‖B) = Σ p_A log(p_A / p_B) of the
predicted distributions, averaged over the tokens; the share of tokens where both have the same first choice; and the
root of the mean square of Δp = p_B − p_A of the tokens themselves. Two models can have the same loss and differ a lot:
the loss sees one entry of each distribution, the divergence all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.units import format_small, plural, visible


@dataclass(frozen=True)
class Divergence:
    """How far two models are apart on the same tokens.

    Intervals are 95 % jackknife-t over documents (blocks of tokens in a single document).

    Attributes:
        first, second: names of the models A and B.
        tokens: scored tokens.
        mean_kl_nats: mean KL(A‖B) per token, and its interval; infinite, without an interval, where one token's is.
        kl_percentiles: share of the tokens ("0" to "1", as in "0.999") → KL(A‖B) that they do not exceed.
        infinite_kl_tokens: tokens where A gives probability to an entry that B excludes.
        same_top_share: share of the tokens where both have the same first choice (the first one among equals), and its
            interval.
        rms_target_prob_change: √ mean (p_B − p_A)² of the tokens themselves, and its interval.
        mean_target_prob_change: mean p_B − p_A of the tokens themselves, and its interval.
        target_prob_change_percentiles: share of the tokens → p_B − p_A that they do not exceed.
        first_mean_loss, second_mean_loss: mean −log p of the tokens, in nats.
        by: what slices are: "type" (vocabulary entry), "document", "context", "class", "frequency" or a field; "token"
            for none.
        hardest: the tokens with the largest divergence, largest first, in text order among equals: document, token,
            text, token_id, kl_nats, first_loss_nats, second_loss_nats, first_top_text, second_top_text (what each model
            expected), context, before, characters, after (the text).
        slices: None by token; else one row per slice, by type, document or field those with the largest share_of_kl
            first, others in a fixed order: group, tokens, clusters, mean_kl_nats, low, high (its 95 % interval; NaN
            with fewer than two clusters, or where one token's divergence is infinite), share_of_kl (of the sum over all
            tokens; NaN where that is 0 or infinite), same_top_share; and what names it beside that, as in
            `changes.Changes`.
        by_position: the same by context, one row per octave.
        notes: what a reader must know, one line each.
    """

    first: str
    second: str
    tokens: int
    mean_kl_nats: float
    mean_kl_nats_interval: Interval
    kl_percentiles: dict[str, float]
    infinite_kl_tokens: int
    same_top_share: float
    same_top_share_interval: Interval
    rms_target_prob_change: float
    rms_target_prob_change_interval: Interval
    mean_target_prob_change: float
    mean_target_prob_change_interval: Interval
    target_prob_change_percentiles: dict[str, float]
    first_mean_loss: float
    second_mean_loss: float
    by: str
    hardest: pd.DataFrame = field(repr=False)
    slices: pd.DataFrame | None = field(repr=False)
    by_position: pd.DataFrame = field(repr=False)
    notes: list[str]

    @property
    def table(self) -> pd.DataFrame:
        """One row per measure: measure, value, low, high (NaN without an interval), unit."""
        kl, change = self.kl_percentiles.items(), self.target_prob_change_percentiles.items()
        rows = [
            ("mean_kl_nats", self.mean_kl_nats, self.mean_kl_nats_interval, "nats per token"),
            *((f"kl_nats_q{share}", value, NO_INTERVAL, "nats") for share, value in kl),
            ("infinite_kl_tokens", self.infinite_kl_tokens, NO_INTERVAL, "tokens"),
            ("same_top_share", self.same_top_share, self.same_top_share_interval, "share of tokens"),
            (
                "rms_target_prob_change",
                self.rms_target_prob_change,
                self.rms_target_prob_change_interval,
                "probability",
            ),
            (
                "mean_target_prob_change",
                self.mean_target_prob_change,
                self.mean_target_prob_change_interval,
                "probability",
            ),
            *((f"target_prob_change_q{share}", value, NO_INTERVAL, "probability") for share, value in change),
            ("first_mean_loss", self.first_mean_loss, NO_INTERVAL, "nats per token"),
            ("second_mean_loss", self.second_mean_loss, NO_INTERVAL, "nats per token"),
        ]
        frame = pd.DataFrame([(name, value, *interval, unit) for name, value, interval, unit in rows])
        frame.columns = pd.Index(["measure", "value", "low", "high", "unit"])
        return frame.astype({"value": float, "low": float, "high": float})

    @property
    def finding(self) -> str:
        """The result in one line."""
        name = f"KL({visible(self.first, 40)}‖{visible(self.second, 40)})"
        over = plural(self.tokens, "token")
        if not self.kl_percentiles["1"]:
            return f"{name} is exactly 0 on all of {over}"
        low, high = self.mean_kl_nats_interval
        ends = "no interval" if low is None or high is None else f"[{format_small(low)}, {format_small(high)}]"
        return (
            f"{name} {format_small(self.mean_kl_nats)} nats a token ({ends}), the same first choice on "
            f"{self.same_top_share:.2%} of {over}, RMS Δp {self.rms_target_prob_change:.2%}"
        )
