"""Two models with different tokenizers on the same text, compared in bits per byte.

Their tokens cannot be paired, but the bytes can: the text is cut wherever both tokenizations end a token, and the
losses of each model are summed between the cuts (see `byte_spans`). Both models must have scored all of a span: what
one of them left unscored, such as a document's first token without a BOS, is left out for both. So each model's bits
per byte are its total over the same bytes, and the difference is that of the totals.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import stdtr

from lossprobe.analysis.compare.byte_comparison import (
    CONTEXTS,
    ByteComparison,
    ByteCounts,
    ByteDifference,
    ByteEvidence,
)
from lossprobe.analysis.compare.byte_spans import SharedText, cut_spans, shared_text
from lossprobe.analysis.compare.byte_sums import CUTS, SpanSums
from lossprobe.analysis.per_byte import why_not_per_word
from lossprobe.analysis.rows.clusters import document_clusters
from lossprobe.analysis.rows.outcomes import refuse_not_finite
from lossprobe.analysis.stats.interval import NO_INTERVAL, Estimate, Interval
from lossprobe.analysis.stats.jackknife import t_quantile
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.errors import NotComparableError, OutputError
from lossprobe.run.names import distinct_names
from lossprobe.run.reader import Run
from lossprobe.run.shown import shown_run
from lossprobe.run.texts import DocumentTexts
from lossprobe.units import format_count, plural, visible, visible_bytes

TOP = 20
TEXT_CHARACTERS = 120
DETECTABLE_ERRORS = 2.8  # 1.960 + 0.842: found with 80 % power at a two-sided 5 %
UNITS = {
    "first_bits_per_byte": "bits per byte",
    "second_bits_per_byte": "bits per byte",
    "difference_bits_per_byte": "bits per byte",
    "minimum_detectable": "bits per byte",
    "p_value": "probability",
    "design_effect": "ratio",
    "correlation": "over spans",
    "first_bytes_per_token": "bytes per token",
    "second_bytes_per_token": "bytes per token",
}
UPPER_BOUND = "bits are those of each model's own tokenization, an upper bound on what the text costs it"


def compare_bytes(first: Run, second: Run, top: int = TOP) -> ByteComparison:
    """Return the comparison of two runs of the same text, whatever their tokenizers, in bounded memory.

    Args:
        first: the run to compare with.
        second: the run to judge.
        top: most spans listed as increased, and as decreased.

    Raises:
        NotComparableError: the texts differ, or no span was scored by both models.
        OutputError: stored spans do not tile a document, or a loss is NaN or infinite.
    """
    text = shared_text(first, second)
    sums = SpanSums(text, top)
    for spans in cut_spans(first, second, text):
        sums.add(spans)
    if sums.seen != int(text.sizes[text.usable].sum()):
        raise OutputError(
            "run.damaged",
            f"{shown_run(first.path)} or {shown_run(second.path)}: token spans do not tile the text",
            hint="check them with lossprobe verify",
        )
    if not sums.finite:
        refuse_not_finite(first)
        refuse_not_finite(second)
    if not sums.spans.any():
        reasons = _by_reason(sums) or "the text is empty"
        raise NotComparableError("runs.no_common_bytes", f"no byte was scored by both models ({reasons})")
    names = distinct_names([first, second])
    largest = _with_text((first, second), sums.largest())
    found = _comparison((names[0], names[1]), sums, largest, _notes((first, second), text, sums))
    return replace(found, by_file=_by_file(first, sums))


def _comparison(names: tuple[str, str], sums: SpanSums, largest: pd.DataFrame, notes: list[str]) -> ByteComparison:
    """Return the result, without what is said by file."""
    first, second, difference = sums.bits_per_byte()
    compression = sums.bytes_per_token
    found = ByteDifference(
        first_bits_per_byte=first.value,
        second_bits_per_byte=second.value,
        difference_bits_per_byte=difference.value,
        difference_bits_per_byte_interval=difference.interval,
        first_bytes_per_token=compression[0],
        second_bytes_per_token=compression[1],
        correlation=sums.correlation(),
    )
    evidence = _evidence(difference, sums)
    intervals = {
        "first_bits_per_byte": first.interval,
        "second_bits_per_byte": second.interval,
        "difference_bits_per_byte": difference.interval,
    }
    numbers = {**vars(found), **vars(evidence)}
    rows = [(name, numbers[name], *intervals.get(name, NO_INTERVAL), unit) for name, unit in UNITS.items()]
    table = pd.DataFrame(rows, columns=["measure", "value", "low", "high", "unit"])
    return ByteComparison(
        first=names[0],
        second=names[1],
        counts=ByteCounts(sums.documents, int(sums.spans.sum()), sums.size(), dict(sums.left_out)),
        difference=found,
        evidence=evidence,
        interval_unit=sums.unit,
        clusters=sums.clusters,
        largest=largest,
        by_cut=_by_cut(sums),
        by_file=pd.DataFrame(),
        notes=notes,
        table=table.astype({"value": float, "low": float, "high": float}),
    )


def _evidence(difference: Estimate, sums: SpanSums) -> ByteEvidence:
    error = _standard_error(difference.interval, sums.clusters)
    return ByteEvidence(
        design_effect=sums.design_effect(),
        p_value=_p_value(difference.value, error, sums.clusters),
        minimum_detectable=None if error is None else DETECTABLE_ERRORS * error,
    )


def _standard_error(interval: Interval, clusters: int) -> float | None:
    if interval.low is None or interval.high is None:
        return None
    return (interval.high - interval.low) / 2 / float(t_quantile(clusters))


def _p_value(difference: float, error: float | None, clusters: int) -> float | None:
    """Return the two-sided p of no difference; None without an error, or where all clusters differ by the same."""
    if error is None:
        return None
    if error == 0.0:
        return 1.0 if difference == 0.0 else None
    return 2.0 * float(stdtr(clusters - 1, -abs(difference) / error))


def _by_cut(sums: SpanSums) -> pd.DataFrame:
    rows = []
    for index, cut in enumerate(CUTS):
        first, second, difference = sums.bits_per_byte(index)
        rows.append(
            {
                "cut": cut, "spans": int(sums.spans[index]), "bytes": sums.size(index),
                "share_of_bytes": sums.size(index) / sums.size(),
                "first_bits_per_byte": first.value, "second_bits_per_byte": second.value,
                "difference_bits_per_byte": difference.value, **difference.interval._asdict(),
                "contribution_bits_per_byte": sums.contribution(index),
            }
        )  # fmt: skip
    return pd.DataFrame(rows).astype({"low": float, "high": float})


def _by_file(run: Run, sums: SpanSums) -> pd.DataFrame:
    """Return the difference by file of the text; without rows where there is one only, or blocks are resampled."""
    number, files = pd.factorize(run.query("SELECT source FROM documents ORDER BY document")["source"])
    if len(files) < 2 or sums.unit != "document":
        return pd.DataFrame()
    table = sums.by_group(number.astype(np.int64))
    table.insert(0, "file", files[table.pop("row").to_numpy()])
    table.insert(3, "share_of_bytes", table["bytes"] / sums.size())
    return table


def _with_text(runs: tuple[Run, Run], rows: Floats) -> pd.DataFrame:
    """Return the largest changes as a frame; documents are read once each, in order."""
    document, start, stop = rows[:, :3].astype(np.int64).T
    stored = next((texts for texts in map(DocumentTexts, runs) if texts.kept), DocumentTexts(runs[0]))
    shown = [""] * len(rows)
    order = np.argsort(document, kind="stable")
    for at, data in zip(order, stored.along(document[order].tolist()), strict=True):
        if data is not None:
            end = min(stop[at], start[at] + 4 * TEXT_CHARACTERS + 4)  # enough for a cut to show
            shown[at] = visible_bytes(data[start[at] : end], TEXT_CHARACTERS)
    return pd.DataFrame(
        {
            "document": document, "byte_start": start, "byte_stop": stop, "text": shown,
            "first_bits": rows[:, 3], "second_bits": rows[:, 4], "difference_bits": rows[:, 4] - rows[:, 3],
        }
    )  # fmt: skip


def _notes(runs: tuple[Run, Run], text: SharedText, sums: SpanSums) -> list[str]:
    notes = [] if (note := _interval_note(runs[0], sums)) is None else [note]
    if sums.left_out:
        size = sum(sums.left_out.values())
        share = size / int(text.sizes.sum())
        notes.append(f"{plural(size, 'byte')} ({share:.2%}) left out for both: {_by_reason(sums)}")
    for run in runs:
        rewritten = int(run.counts["normalized_bytes"])
        if rewritten:
            what = f"{plural(rewritten, 'byte')} of the text"
            notes.append(f"{visible(run.name, 80)}: its tokenizer dropped or rewrote {what}, which cost it nothing")
        if vanished := why_not_per_word(run.counts):
            notes.append(f"{visible(run.name, 80)}: documents left out, {vanished}")
    if not any(run.settings.text.kept for run in runs):
        notes.append("no text of the spans: both runs were made with `keep_text=False`")
    contexts = [
        f"{visible(name, 80)} {plural(run.context, 'token')}, about {plural(round(run.context * per_token), 'byte')}"
        for name, run, per_token in zip(distinct_names(list(runs)), runs, sums.bytes_per_token, strict=True)
    ]
    return [*notes, f"{CONTEXTS}{'; '.join(contexts)}", UPPER_BOUND]


def _by_reason(sums: SpanSums) -> str:
    return ", ".join(f"{visible(reason, 40)} {format_count(size)}" for reason, size in sorted(sums.left_out.items()))


def _interval_note(run: Run, sums: SpanSums) -> str | None:
    if sums.clusters < 2:
        return f"a single {sums.unit} of text was scored by both: no interval can be given"
    documents = document_clusters(run)
    if sums.unit == "document":
        return documents.note
    return (
        f"{documents.note or 'one document'}: intervals resample {sums.clusters} blocks of about 16 KiB of text "
        "and are a lower bound; give documents (a folder, a JSONL, `split_documents`) for better ones"
    )
