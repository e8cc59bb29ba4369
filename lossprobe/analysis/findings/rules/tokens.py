"""What the spread of the losses of single tokens says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lossprobe.analysis.findings.rule import Clue, FindingRule
from lossprobe.analysis.findings.words import percent

if TYPE_CHECKING:
    from lossprobe.analysis.tokens import TokenLosses

CARRIED = 0.8


def _few(result: TokenLosses) -> Iterator[Clue]:
    share = result.hard_tokens_share_of_loss
    yield Clue(share, f"the hardest 10 % of the tokens carry {percent(share)} of the loss", counted=True,
               tokens=result.tokens_scored, share_of_loss=share)  # fmt: skip


TOKEN_RULES = (
    FindingRule(
        "few-tokens-carry", "note", "tokens", "a tenth of the tokens carries nearly all of the loss", CARRIED,
        "share of the loss", "share of the total loss of the hardest 10 % of the tokens",
        "In prose it is 40 to 50 %; above 80 % the rest is known, and the mean is that of a few.",
        "Read the hardest tokens; the text may be a template or code with few free places.",
        "lossprobe hardest RUN", _few,
    ),
)  # fmt: skip
