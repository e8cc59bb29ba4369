"""How far two models are apart on a text: KL divergence, top-1 agreement, and change of the tokens' probabilities.

The measures are those that quantized models are compared by: the divergence KL(A‖B) = Σ p_A log(p_A / p_B) of the
predicted distributions, averaged over the tokens; the share of tokens where both have the same first choice; and the
root of the mean square of Δp = p_B − p_A of the tokens themselves. Two models can have the same loss and differ a lot:
the loss sees one entry of each distribution, the divergence all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from lossprobe.analysis.stats.jackknife import Interval
from lossprobe.units import plural, visible


@dataclass(frozen=True)
class Divergence:
    """How far two models are apart on the same tokens.

    Intervals are 95 % jackknife-t over documents (blocks of tokens in a single document).

    Attributes:
        first, second: names of the models A and B.
        tokens: scored tokens.
        mean_kl_nats: mean KL(A‖B) per token; infinite, without an interval, where one token's is.
        kl_percentiles: share of the tokens ("0" to "1", as in "0.999") → KL(A‖B) that they do not exceed.
        infinite_kl_tokens: tokens where A gives probability to an entry that B excludes.
        same_top_share: share of the tokens where both have the same first choice (the first one among equals).
        rms_target_prob_change: √ mean (p_B − p_A)² of the tokens themselves.
        target_prob_change_percentiles: share of the tokens → p_B − p_A that they do not exceed.
        first_mean_loss, second_mean_loss: mean −log p of the tokens, in nats.
        hardest: the tokens with the largest divergence, largest first: document, token, token_id, kl_nats,
            first_loss_nats, second_loss_nats.
        notes: what a reader must know, one line each.
    """

    first: str
    second: str
    tokens: int
    mean_kl_nats: Interval
    kl_percentiles: dict[str, float]
    infinite_kl_tokens: int
    same_top_share: Interval
    rms_target_prob_change: Interval
    target_prob_change_percentiles: dict[str, float]
    first_mean_loss: float
    second_mean_loss: float
    hardest: pd.DataFrame = field(repr=False)
    notes: list[str]

    @property
    def table(self) -> pd.DataFrame:
        """One row per measure: measure, value, low, high (NaN without an interval), unit."""
        rows = [("mean_kl_nats", self.mean_kl_nats, "nats per token")]
        rows += [(f"kl_nats_q{key}", _plain(value), "nats") for key, value in self.kl_percentiles.items()]
        rows += [
            ("infinite_kl_tokens", _plain(self.infinite_kl_tokens), "tokens"),
            ("same_top_share", self.same_top_share, "share of tokens"),
            ("rms_target_prob_change", self.rms_target_prob_change, "probability"),
        ]
        for key, value in self.target_prob_change_percentiles.items():
            rows.append((f"target_prob_change_q{key}", _plain(value), "probability"))
        rows += [
            ("first_mean_loss", _plain(self.first_mean_loss), "nats per token"),
            ("second_mean_loss", _plain(self.second_mean_loss), "nats per token"),
        ]
        frame = pd.DataFrame([(name, one.estimate, one.low, one.high, unit) for name, one, unit in rows])
        frame.columns = pd.Index(["measure", "value", "low", "high", "unit"])
        return frame.astype({"value": float, "low": float, "high": float})

    @property
    def finding(self) -> str:
        """The result in one line."""
        low, high = self.mean_kl_nats.low, self.mean_kl_nats.high
        ends = "no interval" if low is None or high is None else f"[{low:.6f}, {high:.6f}]"
        return (
            f"KL({visible(self.first, 40)}‖{visible(self.second, 40)}) {self.mean_kl_nats.estimate:.6f} nats a token "
            f"({ends}), the same first choice on {self.same_top_share.estimate:.2%} of {plural(self.tokens, 'token')}, "
            f"RMS Δp {self.rms_target_prob_change.estimate:.2%}"
        )


def _plain(value: float) -> Interval:
    return Interval(float(value), None, None)
