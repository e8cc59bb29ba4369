"""Compares two runs of one text: token by token, or through bytes if their tokens differ."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pandas as pd

from lossprobe.analysis.compare.byte_comparison import ByteComparison
from lossprobe.analysis.compare.byte_pairs import compare_bytes
from lossprobe.analysis.compare.changes import Changes, find_changes
from lossprobe.analysis.compare.divergence import Divergence
from lossprobe.analysis.compare.tokens import TokenComparison, compare_runs, compare_tokens
from lossprobe.analysis.once import Once
from lossprobe.analysis.options import CompareOptions
from lossprobe.analysis.rows.same_tokens import (
    IDENTITY,
    TOKENIZER,
    Described,
    differing,
    refuse_different,
    same_tokens,
    tokenized_alike,
)
from lossprobe.analysis.shown import Shown
from lossprobe.options.given import check_options
from lossprobe.run.argument import check_runs
from lossprobe.run.reader import Run


@dataclass(frozen=True)
class Comparison(Shown):
    """Two models on one text; differences are second − first.

    Attributes:
        table: one row per measure of the comparison: measure, value, low, high, unit.
        token_comparison: paired token by token; None where the models have different tokens.
        changes: where they differ, by token or by slice; None like that.
        byte_comparison: through the bytes of the text; None where the tokens are the same.
        divergence: of the whole predicted distributions; None where it was not measured.
        notes: what a reader must know, one line each.
    """

    table: pd.DataFrame = field(repr=False)
    token_comparison: TokenComparison | None
    changes: Changes | None
    byte_comparison: ByteComparison | None
    divergence: Divergence | None
    notes: list[str]

    @property
    def finding(self) -> str:
        """The result in one line."""
        parts = (self.token_comparison, self.byte_comparison, self.changes, self.divergence)
        return "; ".join(part.finding for part in parts if part is not None)

    def with_divergence(self, divergence: Divergence) -> Comparison:
        """Return the same with the divergence of the two models."""
        notes = list(dict.fromkeys([*self.notes, *divergence.notes]))
        return replace(self, divergence=divergence, notes=notes)


def compare(
    first: Run,
    second: Run,
    by: str = CompareOptions.by,
    top: int = CompareOptions.top,
    *,
    allow_different: bool = CompareOptions.allow_different,
    once: Once | None = None,
) -> Comparison:
    """Return how two runs of one text differ.

    Args:
        first: the run to compare with.
        second: the other run.
        by: slices of the changes; see `changes.find_changes`. Unused for different tokens.
        top: rows of the changes.
        allow_different: compare although windows or BOS differ.
        once: keeps what does not depend on `by` and `top`, for a caller that compares again; None keeps nothing.

    Raises:
        NotComparableError: the texts differ, or with the same tokenizer the windows or BOS do.
        UsageError: no document has the field of `by`.
    """
    check_runs(first=first, second=second)
    check_options(CompareOptions, by=by, top=top, allow_different=allow_different)
    once = once or Once()
    if not allow_different:
        refuse_other_windows(first, second)
    if not same_tokens([first, second]):
        through_bytes = once(compare_bytes, first, second, top)
        return Comparison(through_bytes.table, None, None, through_bytes, None, through_bytes.notes)
    if by == "token":
        tokens, changed = once(compare_tokens, first, second, top)
        changes = once(find_changes, first, second, by, top, changed)
    else:
        tokens, changes = once(compare_runs, first, second), once(find_changes, first, second, by, top)
    notes = list(dict.fromkeys([*tokens.notes, *changes.notes]))
    return Comparison(tokens.table, tokens, changes, None, None, notes)


def refuse_other_windows(first: Described, second: Described) -> None:
    """Refuse runs of the same tokens that differ in text, windows or BOS; runs of other tokens are compared by bytes.

    Raises:
        NotComparableError: the message names the runs and the difference.
    """
    others = {key: words for key, words in IDENTITY.items() if key != TOKENIZER}
    # Looked at first: the tokens of runs that agree in all else need not be read for it.
    if differing(first, second, others) and tokenized_alike(first, second):
        refuse_different([first, second])
