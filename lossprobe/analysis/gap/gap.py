"""Train and validation loss of one checkpoint: how far apart, where, and which training documents it knows by heart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lossprobe.analysis.gap.memorised import MEMORISED_TOKENS, Memorised, find_memorised
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.comparable import IDENTITY
from lossprobe.analysis.rows.outcomes import CORRECT, refuse_not_finite
from lossprobe.analysis.rows.token_classes import FORMS
from lossprobe.analysis.rows.unpaired import (
    TextEstimate,
    class_sums,
    estimate_ratio,
    frequency_names,
    frequency_sums,
    group_rows,
    loss_cells,
    same_mix_difference,
    unpaired_difference,
)
from lossprobe.analysis.stats.jackknife import Interval
from lossprobe.errors import NotComparableError
from lossprobe.run.reader import Run
from lossprobe.units import format_perplexity, perplexity, plural, visible

SMALL_SHARE = 0.01  # of the validation loss: a gap that is not shown to be larger does not count as one
LARGE_SHARE = 0.10  # of the validation loss: a gap that is shown to be larger is called over-fitting
NO_GAP, A_GAP, OVER_FITTED, UNDECIDED = "no gap shown", "a gap", "over-fitted", "cannot tell"

# What must be equal, and what a reader calls it: everything but the text.
SAME_MODEL = {
    ("checkpoint", "sha256"): "checkpoint",
    ("checkpoint", "compute_dtype"): "dtype",
    **{key: words for key, words in IDENTITY.items() if words != "text"},
}

LOSS_COLUMNS = (
    "train_loss_nats", "train_low", "train_high", "validation_loss_nats", "validation_low", "validation_high",
    "gap_nats", "low", "high",
)  # fmt: skip

VERDICT_NOTE = (
    f"verdict, from the lower ends of gap_nats and gap_same_mix_nats: up to {SMALL_SHARE:.0%} of the validation loss "
    f"is “{NO_GAP}”, above {LARGE_SHARE:.0%} is “{OVER_FITTED}”, between them is “{A_GAP}”"
)
CHECKPOINT_NOTE = (
    "one checkpoint shows how much better the model knows the text it was trained on, not whether training went on too "
    "long: for that, look for a validation loss that rises again over training. Only texts of the same kind can be "
    "compared: a harder validation text shows a gap too"
)
UNPAIRED_NOTE = (
    "each text is taken for a sample of documents from a larger one: intervals are unpaired and hold the chance of both"
)
SAME_TEXT_NOTE = "train and validation are the same text: there is no gap to be found"
UNIDENTIFIED_NOTE = "the checkpoint has no sha256: that both texts were scored with the same weights was not checked"


@dataclass(frozen=True)
class Gap:
    """Train and validation loss of one checkpoint, and their difference.

    Intervals are 95 %: of one text jackknife-t over documents (blocks of 4,096 tokens in a single document), of a
    difference unpaired (Welch–Satterthwaite t over the standard errors of both), since each text stands for a larger
    one. Perplexities and their ratio transform the ends of the interval in nats. A number is None where it cannot be
    given; `notes` says why.

    Attributes:
        checkpoint: name of the model; `train_text` and `validation_text` those of the texts.
        verdict: "no gap shown", "a gap", "over-fitted", or "cannot tell" without an interval.
        gap_nats: validation − train loss in nats per token, and `gap_nats_interval` [low, high].
        gap_share: gap_nats / validation loss; None where that is 0.
        gap_same_mix_nats: the gap where both texts have the validation text's mix of token classes: the mean of the
            classes' own gaps, weighted by their share of the validation text (direct standardisation). A text with more
            of the hard classes has a higher loss without any over-fitting; gap_nats − gap_same_mix_nats is that part.
        train_nll_nats, validation_nll_nats: mean loss of either text.
        train_perplexity, validation_perplexity: their exponentials.
        perplexity_ratio: exp(gap_nats).
        train_accuracy, validation_accuracy: share of tokens that were the first choice.
        train_tokens, validation_tokens: scored tokens.
        train_documents, validation_documents: documents read.
        train_interval_unit, validation_interval_unit: "document" or "block".
        train_memorised, validation_memorised: documents known by heart; in the validation text these are copies of
            training text, or text that anybody could foresee.
        notes: what a reader must know, one line each.
        table: one row per group of tokens: group, kind ("all", "class", or "frequency": how often the token occurs in
            the training text outside its own document), train_tokens, validation_tokens, train_loss_nats, train_low,
            train_high, validation_loss_nats, validation_low, validation_high, gap_nats, low, high. NaN where a text has
            no such tokens, or too few documents (over 10,000 are merged into so many for an interval).
    """

    checkpoint: str
    train_text: str
    validation_text: str
    verdict: str
    gap_nats: float
    gap_nats_interval: list[float | None]
    gap_share: float | None
    gap_same_mix_nats: float | None
    gap_same_mix_nats_interval: list[float | None]
    train_nll_nats: float
    train_nll_nats_interval: list[float | None]
    validation_nll_nats: float
    validation_nll_nats_interval: list[float | None]
    train_perplexity: float
    train_perplexity_interval: list[float | None]
    validation_perplexity: float
    validation_perplexity_interval: list[float | None]
    perplexity_ratio: float
    perplexity_ratio_interval: list[float | None]
    train_accuracy: float
    train_accuracy_interval: list[float | None]
    validation_accuracy: float
    validation_accuracy_interval: list[float | None]
    train_tokens: int
    validation_tokens: int
    train_documents: int
    validation_documents: int
    train_interval_unit: str
    validation_interval_unit: str
    train_memorised: Memorised
    validation_memorised: Memorised
    notes: list[str]
    table: pd.DataFrame = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        low, high = self.gap_nats_interval
        ends = "no interval" if low is None or high is None else f"[{low:+.3f}, {high:+.3f}]"
        share = "" if self.gap_share is None else f", {self.gap_share:.1%} of the validation loss"
        mix = "" if self.gap_same_mix_nats is None else f"; {self.gap_same_mix_nats:+.3f} at the same mix of classes"
        known = self.train_memorised
        return (
            f"{self.verdict}: validation − train {self.gap_nats:+.3f} nats per token {ends}{share}{mix}; perplexity "
            f"{format_perplexity(self.train_perplexity)} → {format_perplexity(self.validation_perplexity)}; "
            f"{known.documents} of {plural(known.judged_documents, 'training document')} memorised"
        )


def measure_gap(train: Run, validation: Run) -> Gap:
    """Return how much lower a checkpoint's loss is on the text it was trained on than on another one.

    Args:
        train: the run over the training text, or a sample of it.
        validation: the run over a held-out text, made with the same checkpoint and options.

    Raises:
        NotComparableError: the runs differ in anything but the text.
        OutputError: a stored loss is NaN or infinite, which scoring never writes.
    """
    refuse_other_than_text(train, validation)
    losses, sides = {}, {}
    for name, run in (("train", train), ("validation", validation)):
        losses[name], sides[name] = _measure_text(run)
    known = {name: find_memorised(run) for name, run in (("train", train), ("validation", validation))}
    classes = class_sums(train), class_sums(validation)
    gap = unpaired_difference(losses["train"], losses["validation"])
    same_mix, new_tokens = same_mix_difference(*classes)
    level = losses["validation"].value
    whole: dict[str, Any] = {"group": "all tokens", "kind": "all"}
    whole |= {f"{name}_tokens": side["tokens"] for name, side in sides.items()}
    table = pd.concat(
        [
            pd.DataFrame([whole | loss_cells(losses["train"], losses["validation"])]),
            group_rows("class", list(FORMS), *classes),
            group_rows("frequency", frequency_names(), *frequency_sums(train, validation)),
        ],
        ignore_index=True,
    )
    return Gap(
        checkpoint=train.name,
        verdict=judge_gap((gap, same_mix), level),
        **_with_interval("gap_nats", gap),
        gap_share=gap.estimate / level if level > 0 else None,
        **_with_interval("gap_same_mix_nats", same_mix),
        **_with_interval("perplexity_ratio", gap, exponential=True),
        **{f"{name}_{key}": value for name, side in sides.items() for key, value in side.items()},
        train_memorised=known["train"],
        validation_memorised=known["validation"],
        notes=_notes((train, validation), gap, new_tokens, known),
        table=table.astype(dict.fromkeys(LOSS_COLUMNS, float)),
    )


def judge_gap(gaps: Sequence[Interval], validation_nats: float) -> str:
    """Return the verdict on a gap and the gap at the same mix of classes (each of which may lack its interval).

    The lower ends count, so that chance alone makes a gap in at most one of forty pairs of texts. The limits are
    conventions: .053 nats of 1.287 (4 %) is a normal gap, and a model that loses a tenth of its validation loss or more
    on text it has seen owes that to the text, not to the language.

    >>> judge_gap([Interval(0.053, 0.02, 0.086)], 1.287), judge_gap([Interval(1.889, 1.8, 2.0)], 2.1)
    ('a gap', 'over-fitted')
    """
    if gaps[0].low is None:
        return UNDECIDED
    low = min(gap.low for gap in gaps if gap.low is not None)
    if low <= SMALL_SHARE * validation_nats:
        return NO_GAP
    return OVER_FITTED if low > LARGE_SHARE * validation_nats else A_GAP


def refuse_other_than_text(train: Run, validation: Run) -> None:
    """Refuse runs that differ in checkpoint, dtype, tokenizer, windows or BOS.

    Raises:
        NotComparableError: the message names the runs and the difference.
    """
    values = {words: [_setting(run, *key) for run in (train, validation)] for key, words in SAME_MODEL.items()}
    found = [
        f"{words} ({' and '.join(visible(str(value), 12) for value in pair)})"
        for words, pair in values.items()
        if pair[0] != pair[1]
    ]
    if found:
        names = f"{visible(train.name, 80)} and {visible(validation.name, 80)}"
        raise NotComparableError(
            "runs.different",
            f"{names}: only the text may differ, and they differ in {', '.join(found)}",
            hint="score both texts with the same checkpoint and options",
        )


def _setting(run: Run, group: str, key: str) -> Any:
    return run.manifest["settings"].get(group, {}).get(key)


def _measure_text(run: Run) -> tuple[TextEstimate, dict[str, Any]]:
    """Return the mean loss of a text, and its numbers in `Gap` without "train" or "validation" before their names."""
    clusters = find_clusters(run)
    sums = run.query(f"""
        SELECT sum(loss_nats::DOUBLE) AS nats, sum({CORRECT}) AS correct, count(*) AS tokens
        FROM tokens WHERE unscored IS NULL GROUP BY {clusters.sql} ORDER BY {clusters.sql}""").to_numpy(float)
    if not np.isfinite(sums).all():
        refuse_not_finite(run)
    nll, accuracy = (estimate_ratio(sums[:, index], sums[:, 2]) for index in (0, 1))
    return nll, {
        "text": run.text_name,
        **_with_interval("nll_nats", nll.interval),
        **_with_interval("perplexity", nll.interval, exponential=True),
        **_with_interval("accuracy", accuracy.interval),
        "tokens": int(sums[:, 2].sum()),
        "documents": int(run.counts["documents"]),
        "interval_unit": clusters.unit,
    }


def _with_interval(name: str, interval: Interval, *, exponential: bool = False) -> dict[str, Any]:
    """Return a number and its interval under the names that they have in `Gap`."""
    numbers = (interval.estimate, interval.low, interval.high)
    shown = [None if x is None or math.isnan(x) else perplexity(x) if exponential else x for x in numbers]
    return {name: shown[0], f"{name}_interval": shown[1:]}


def _notes(runs: tuple[Run, Run], gap: Interval, new_tokens: int, known: dict[str, Memorised]) -> list[str]:
    train, validation = runs
    notes = [UNPAIRED_NOTE, VERDICT_NOTE, CHECKPOINT_NOTE]
    for name, run in (("train", train), ("validation", validation)):
        clusters = find_clusters(run)
        notes += [f"{name}: {clusters.note}"] if clusters.note else []
    texts = [run.settings.text.sha256 for run in runs]
    if texts[0] is not None and texts[0] == texts[1]:
        notes.append(SAME_TEXT_NOTE)
    if not train.settings.checkpoint.sha256:
        notes.append(UNIDENTIFIED_NOTE)
    if gap.high is not None and gap.high < 0:
        notes.append("the validation text is the easier one: a gap could hide behind that")
    if new_tokens:
        left_out = plural(new_tokens, "validation token")
        notes.append(f"gap_same_mix_nats: without {left_out} of classes that the training text lacks")
    for name, memorised in known.items():
        if memorised.short_documents:
            short = plural(memorised.short_documents, f"{name} document")
            notes.append(f"memorised: {short} with fewer than {MEMORISED_TOKENS} scored tokens not judged")
    if known["validation"].documents:
        leaked = plural(known["validation"].documents, "validation document")
        notes.append(
            f"{leaked} of near-zero loss: a leak of training text into the validation text (which makes the gap look "
            "smaller), or text that anybody could foresee"
        )
    return notes
