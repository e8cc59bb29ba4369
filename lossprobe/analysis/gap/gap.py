"""Train and validation loss of one checkpoint: how far apart, where, and which training documents it knows by heart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lossprobe.analysis.gap.memorised import MEMORISED_TOKENS, MemorisedDocuments, find_memorised
from lossprobe.analysis.gap.verdict import VERDICT_NOTE, judge_gap, lower_end
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.outcomes import CORRECT, refuse_not_finite
from lossprobe.analysis.rows.same_tokens import IDENTITY
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
from lossprobe.analysis.shown import Shown
from lossprobe.analysis.stats.interval import Interval
from lossprobe.errors import NotComparableError
from lossprobe.run.argument import check_runs
from lossprobe.run.reader import Run
from lossprobe.units import format_perplexity, perplexity, plural, visible

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
class GapSide:
    """One of the two texts under the checkpoint.

    Attributes:
        text: its name.
        nll_nats: mean loss per token, and `nll_nats_interval`.
        perplexity: its exponential, and `perplexity_interval`.
        accuracy: share of tokens that were the first choice, and `accuracy_interval`.
        tokens: scored tokens.
        documents: documents read.
        interval_unit: what intervals resample, "document" or "block", and `clusters`, how many of them.
        memorised: documents known by heart; in the validation text these are copies of training text, or text that
            anybody could foresee.
    """

    text: str
    nll_nats: float
    nll_nats_interval: Interval
    perplexity: float
    perplexity_interval: Interval
    accuracy: float
    accuracy_interval: Interval
    tokens: int
    documents: int
    interval_unit: str
    clusters: int
    memorised: MemorisedDocuments


@dataclass(frozen=True)
class Gap(Shown):
    """Train and validation loss of one checkpoint, and their difference.

    Intervals are 95 %: of one text jackknife-t over documents (blocks of 4,096 tokens in a single document), of a
    difference unpaired (Welch–Satterthwaite t over the standard errors of both), since each text stands for a larger
    one. Perplexities and their ratio transform the ends of the interval in nats. A number is None where it cannot be
    given; `notes` says why.

    Attributes:
        checkpoint: name of the model.
        verdict: "no gap shown", "a gap", "over-fitted", or "cannot tell" without an interval.
        gap_nats: validation − train loss in nats per token, and `gap_nats_interval`.
        gap_share: gap_nats / validation loss; None where that is 0.
        gap_same_mix_nats: the gap where both texts have the validation text's mix of token classes: the mean of the
            classes' own gaps, weighted by their share of the validation text (direct standardisation). A text with more
            of the hard classes has a higher loss without any over-fitting; gap_nats − gap_same_mix_nats is that part.
        perplexity_ratio: exp(gap_nats), and `perplexity_ratio_interval`.
        train, validation: the two texts, each with its numbers.
        notes: what a reader must know, one line each.
        table: one row per group of tokens: group, kind ("all", "class", or "frequency": how often the token occurs in
            the training text outside its own document), train_tokens, validation_tokens, train_loss_nats, train_low,
            train_high, validation_loss_nats, validation_low, validation_high, gap_nats, low, high. NaN where a text has
            no such tokens, or too few documents (over 10,000 are merged into so many for an interval).
    """

    checkpoint: str
    verdict: str
    gap_nats: float
    gap_nats_interval: Interval
    gap_share: float | None
    gap_same_mix_nats: float | None
    gap_same_mix_nats_interval: Interval
    perplexity_ratio: float
    perplexity_ratio_interval: Interval
    train: GapSide
    validation: GapSide
    notes: list[str]
    table: pd.DataFrame = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        ends = self.gap_nats_interval.shown("+.3f")
        share = "" if self.gap_share is None else f", {self.gap_share:.1%} of the validation loss"
        lower, level = lower_end((self.gap_nats_interval, self.gap_same_mix_nats_interval)), self.validation.nll_nats
        rule = "" if lower is None or level <= 0 else f" (by its lower end, {lower / level:.1%} of the validation loss)"
        mix = "" if self.gap_same_mix_nats is None else f"; {self.gap_same_mix_nats:+.3f} at the same mix of classes"
        known = self.train.memorised
        return (
            f"{self.verdict}{rule}: validation − train {self.gap_nats:+.3f} nats per token {ends}{share}{mix}; "
            f"perplexity {format_perplexity(self.train.perplexity)} → {format_perplexity(self.validation.perplexity)}; "
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
    check_runs(train=train, validation=validation)
    refuse_other_than_text(train, validation)
    (train_loss, train_side), (validation_loss, validation_side) = (_measure_text(run) for run in (train, validation))
    classes = class_sums(train), class_sums(validation)
    gap = unpaired_difference(train_loss, validation_loss)
    same_mix, new_tokens = same_mix_difference(*classes)
    ratio = gap.map(perplexity)
    level = validation_loss.value
    whole: dict[str, Any] = {"group": "all tokens", "kind": "all"}
    whole |= {"train_tokens": train_side.tokens, "validation_tokens": validation_side.tokens}
    table = pd.concat(
        [
            pd.DataFrame([whole | loss_cells(train_loss, validation_loss)]),
            group_rows("class", list(FORMS), *classes),
            group_rows("frequency", frequency_names(), *frequency_sums(train, validation)),
        ],
        ignore_index=True,
    )
    known = {"train": train_side.memorised, "validation": validation_side.memorised}
    return Gap(
        checkpoint=train.name,
        verdict=judge_gap((gap.interval, same_mix.interval), level),
        gap_nats=gap.value,
        gap_nats_interval=gap.interval,
        gap_share=gap.value / level if level > 0 else None,
        gap_same_mix_nats=None if math.isnan(same_mix.value) else same_mix.value,
        gap_same_mix_nats_interval=same_mix.interval,
        perplexity_ratio=ratio.value,
        perplexity_ratio_interval=ratio.interval,
        train=train_side,
        validation=validation_side,
        notes=_notes((train, validation), gap.interval, new_tokens, known),
        table=table.astype(dict.fromkeys(LOSS_COLUMNS, float)),
    )


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


def _measure_text(run: Run) -> tuple[TextEstimate, GapSide]:
    """Return the mean loss of a text, and its side of the gap."""
    clusters = find_clusters(run)
    sums = run.query(f"""
        SELECT sum(loss_nats::DOUBLE) AS nats, sum({CORRECT}) AS correct, count(*) AS tokens
        FROM tokens WHERE unscored IS NULL GROUP BY {clusters.sql} ORDER BY {clusters.sql}""").to_numpy(float)
    if not np.isfinite(sums).all():
        refuse_not_finite(run)
    nll, accuracy = (estimate_ratio(sums[:, index], sums[:, 2]) for index in (0, 1))
    return nll, GapSide(
        text=run.text_name,
        nll_nats=nll.value,
        nll_nats_interval=nll.interval,
        perplexity=perplexity(nll.value),
        perplexity_interval=nll.interval.map(perplexity),
        accuracy=accuracy.value,
        accuracy_interval=accuracy.interval,
        tokens=int(sums[:, 2].sum()),
        documents=int(run.counts["documents"]),
        interval_unit=clusters.unit,
        clusters=clusters.count,
        memorised=find_memorised(run),
    )


def _notes(
    runs: tuple[Run, Run], interval: Interval, new_tokens: int, known: dict[str, MemorisedDocuments]
) -> list[str]:
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
    if interval.high is not None and interval.high < 0:
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
