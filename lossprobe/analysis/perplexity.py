"""Perplexity per token, word and byte, bits per byte and character: all from one sum, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lossprobe.analysis.concentration import Concentration, find_concentration
from lossprobe.analysis.coverage import measure_coverage
from lossprobe.analysis.options import PerplexityOptions
from lossprobe.analysis.per_byte import rewriting_note, why_not_per_byte, why_not_per_word
from lossprobe.analysis.rows.clusters import find_clusters, grouped_losses, slice_clusters, slice_notes
from lossprobe.analysis.rows.fields import field_source, is_label, label_order, with_records
from lossprobe.analysis.shown import Tabled
from lossprobe.analysis.stats.interval import NO_INTERVAL, Estimate, Interval
from lossprobe.analysis.stats.jackknife import Clusters, jackknife_ratio
from lossprobe.analysis.unigram import measure_unigram
from lossprobe.options.given import check_options
from lossprobe.plain_table import PlainTable
from lossprobe.run.argument import check_runs
from lossprobe.run.reader import Run
from lossprobe.text.counts import count_spans
from lossprobe.units import bits, format_perplexity, perplexity, plural

if TYPE_CHECKING:
    import pandas as pd

Transform = Callable[[float], float]


@dataclass(frozen=True)
class PerToken:
    """The loss per token.

    Attributes:
        tokens_scored: tokens with a loss.
        nll_nats_per_token: mean loss, and its interval.
        token_perplexity: exp(nll_nats_per_token), and its interval.
    """

    tokens_scored: int
    nll_nats_per_token: float
    nll_nats_per_token_interval: Interval
    token_perplexity: float
    token_perplexity_interval: Interval


@dataclass(frozen=True)
class PerWord:
    """The loss per word, a word being a run without white space.

    Attributes:
        word_perplexity: exp(total nats / scored words), and its interval.
    """

    word_perplexity: float | None
    word_perplexity_interval: Interval


@dataclass(frozen=True)
class PerByte:
    """The loss per UTF-8 byte.

    Attributes:
        bytes: scored bytes.
        byte_perplexity: exp(total nats / scored bytes), and its interval.
        bits_per_byte: total bits / scored bytes, and its interval.
    """

    bytes: int
    byte_perplexity: float | None
    byte_perplexity_interval: Interval
    bits_per_byte: float | None
    bits_per_byte_interval: Interval


@dataclass(frozen=True)
class PerCharacter:
    """The loss per Unicode code point.

    Attributes:
        bits_per_char: total bits / scored code points, and its interval.
    """

    bits_per_char: float | None
    bits_per_char_interval: Interval


@dataclass(frozen=True)
class Perplexity(Tabled):
    """The headline numbers of a run.

    Every interval is a 95 % delete-one jackknife-t interval over documents (blocks of 4,096 tokens in a single
    document); perplexities transform the ends of the interval in nats. A number is None where it cannot be given;
    `notes` says why.

    Attributes:
        per_token, per_word, per_byte, per_character: the same sum of losses over each of these units.
        documents: documents read.
        uniform_nats: log V, the loss of a model that knows nothing.
        unigram_nats: entropy of the text's own token frequencies, the loss of the best model without context.
        unigram_comparable: whether the model can be called better or worse: there are five tokens of each kind, and its
            loss is not between this entropy, which is too low for the language, and what it is without that bias.
        concentration: what carries more of the loss than its tokens can explain, or None.
        interval_unit: "document" or "block", and `clusters`, how many of them the intervals resample.
        distinct_documents: different texts among the documents with scored tokens, and `scored_documents` of these in
            all.
        coverage: tokens and bytes read, scored, and unscored by reason.
        notes: what a reader must know, one line each.
        rows: one row per measure: measure, value, low, high, unit, count.
        by: name of the grouping, or None.
        groups: one row per group, highest mean loss first: group (as text; empty for documents without the field),
            documents, tokens, mean_loss_nats, low, high, perplexity, bits_per_byte; by document also source and line of
            the file, and record_id and record_source where records have the fields id and source.
    """

    per_token: PerToken
    per_word: PerWord
    per_byte: PerByte
    per_character: PerCharacter
    documents: int
    uniform_nats: float
    unigram_nats: float
    unigram_comparable: bool
    concentration: Concentration | None
    interval_unit: str
    clusters: int
    scored_documents: int
    distinct_documents: int
    coverage: dict[str, Any]
    notes: list[str]
    rows: PlainTable = field(repr=False)
    by: str | None = None
    groups: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        token = self.per_token
        text = (
            f"token perplexity {format_perplexity(token.token_perplexity)} over {plural(token.tokens_scored, 'token')}"
        )
        if self.unigram_comparable:
            gain = self.unigram_nats - token.nll_nats_per_token
            better = "better" if gain >= 0 else "worse"
            text += f": {abs(gain):.3f} nats a token {better} than the text's own unigram frequencies"
        return text if self.concentration is None else f"{text}; {self.concentration.finding}"


def measure_perplexity(run: Run, by: str | None = PerplexityOptions.by) -> Perplexity:
    """Return the headline numbers of a run, and the same for groups of documents.

    Args:
        run: the run.
        by: "document", or a field of the JSONL records; None for no groups.

    Raises:
        UsageError: no document has that field.
    """
    check_runs(run=run)
    check_options(PerplexityOptions, by=by)
    clusters = find_clusters(run)
    totals = cluster_totals(run, clusters)
    notes = [clusters.note] if clusters.note else []
    no_bytes, no_words = why_not_per_byte(run.counts), why_not_per_word(run.counts)
    if no_bytes:
        also = ", and word perplexity" if no_words else ""
        notes.append(f"bits per byte and per character{also}: refused, {no_bytes}")
    elif rewritten := rewriting_note(run.counts):
        notes.append(rewritten)
    groups = None if by is None else group_losses(run, by, not no_bytes)
    notes += [] if by is None else slice_notes(run, by)
    unigram = measure_unigram(run)
    nats = totals["nats"]
    per = {
        unit: jackknife_ratio(nats, totals[unit]) if usable and totals[unit].sum() > 0 else None
        for unit, usable in (
            ("tokens", True),
            ("words", not no_words),
            ("bytes", not no_bytes),
            ("characters", not no_bytes),
        )
    }
    return Perplexity(
        **_per_unit(per, totals),
        documents=int(run.counts["documents"]),
        uniform_nats=math.log(run.vocab_size),
        unigram_nats=unigram.nats,
        unigram_comparable=unigram.comparable(nats.sum() / totals["tokens"].sum()),
        interval_unit=clusters.unit,
        clusters=clusters.count,
        scored_documents=run.copies.documents,
        distinct_documents=run.copies.distinct,
        coverage=measure_coverage(run),
        notes=notes,
        concentration=find_concentration(run),
        rows=_rows(per, totals),
        by=by,
        groups=groups,
    )


def _per_unit(per: dict[str, Estimate | None], totals: PlainTable) -> dict[str, Any]:
    """Return the groups of `Perplexity` by unit, from the nats per unit."""
    nll, byte = per["tokens"], per["bytes"]
    assert nll is not None
    token = nll.map(perplexity)
    return {
        "per_token": PerToken(int(totals["tokens"].sum()), nll.value, nll.interval, token.value, token.interval),
        "per_word": PerWord(*_shown(per["words"], perplexity)),
        "per_byte": PerByte(int(totals["bytes"].sum()), *_shown(byte, perplexity), *_shown(byte, bits)),
        "per_character": PerCharacter(*_shown(per["characters"], bits)),
    }


def cluster_totals(run: Run, clusters: Clusters) -> PlainTable:
    """Return nats, tokens, bytes, characters and words of the scored tokens of every cluster."""
    sums = run.columns(f"""
        SELECT {clusters.sql} AS cluster, sum(loss_nats::DOUBLE) AS nats, count(*) AS tokens,
               sum(byte_stop - byte_start)::BIGINT AS bytes, min(byte_start) AS first, max(byte_stop) AS stop
        FROM tokens WHERE unscored IS NULL GROUP BY 1 ORDER BY 1""")
    if clusters.unit == "document":
        sizes = run.columns(f"""
            SELECT {clusters.sql} AS cluster, sum(scored_characters)::BIGINT AS characters,
                   sum(scored_words)::BIGINT AS words
            FROM documents WHERE scored_tokens > 0 GROUP BY 1 ORDER BY 1""")
        return sums.assign(characters=sizes["characters"], words=sizes["words"])
    return sums.assign(**_block_sizes(run, sums))


def _block_sizes(run: Run, blocks: PlainTable) -> dict[str, Any]:
    """Return characters and words of each block of a single document.

    Without a stored text, or where some of a block's bytes are unscored, the document's sizes are shared out by bytes.
    """
    text = run.scalar("SELECT text FROM documents WHERE scored_tokens > 0")
    copies, spans = run.copies.documents, blocks["stop"] - blocks["first"]
    if isinstance(text, str) and bool((copies * spans == blocks["bytes"]).all()):
        sizes = count_spans(text, blocks["first"], blocks["stop"])
        return {name: [copies * getattr(size, name) for size in sizes] for name in ("characters", "words")}
    share = blocks["bytes"] / max(1, int(blocks["bytes"].sum()))
    counts = run.counts
    return {"characters": share * counts["scored_characters"], "words": share * counts["scored_words"]}


def group_losses(run: Run, by: str, tiles: bool) -> pd.DataFrame:
    """Return one row per document, or per value of a JSONL field.

    Raises:
        UsageError: no document has that field.
    """
    if by == "document":
        key, join = "document", "tokens"
    else:
        key, join = "field", field_source(run, by)
    clusters = find_clusters(run) if by == "document" else slice_clusters(run, by)
    frame = grouped_losses(run, clusters, key, join)
    sizes = run.query(f"""
        SELECT {key} AS key, count(DISTINCT document) AS documents, sum(byte_stop - byte_start)::BIGINT AS bytes
        FROM {join} WHERE unscored IS NULL GROUP BY 1 ORDER BY 1""")
    frame["perplexity"] = [perplexity(loss) for loss in frame["mean_loss_nats"]]
    frame["bits_per_byte"] = [
        bits(nats / size) if tiles and size else math.nan
        for nats, size in zip(frame["total_nats"], sizes["bytes"], strict=True)
    ]
    frame["documents"] = sizes["documents"]
    frame = frame.rename(columns={"key": "group", "count": "tokens"})
    columns = ["group", "documents", "tokens", "mean_loss_nats", "low", "high", "perplexity", "bits_per_byte"]
    frame = frame[columns].sort_values(["mean_loss_nats", "group"], ascending=[False, True], ignore_index=True)
    if by == "turn" and is_label(run, by):
        frame = frame.sort_values("group", key=lambda turns: turns.map(label_order), ignore_index=True)
    if by != "document":
        return frame
    return with_records(run, frame.rename(columns={"group": "document"})).rename(columns={"document": "group"})


def _shown(found: Estimate | None, transform: Transform) -> tuple[float | None, Interval]:
    """Return a number made of nats per unit, and its interval; None where there is none."""
    return (None, NO_INTERVAL) if found is None else (transform(found.value), found.interval.map(transform))


def _rows(per: dict[str, Estimate | None], totals: PlainTable) -> PlainTable:
    measures = (
        ("nll", "nats per token", "tokens", float),
        ("token_perplexity", "per token", "tokens", perplexity),
        ("word_perplexity", "per word", "words", perplexity),
        ("byte_perplexity", "per byte", "bytes", perplexity),
        ("bits_per_byte", "bits per byte", "bytes", bits),
        ("bits_per_char", "bits per character", "characters", bits),
    )
    types = {"measure": object, "value": float, "low": float, "high": float, "unit": object, "count": int}
    rows = []
    for measure, unit, of, transform in measures:
        value, interval = _shown(per[of], transform)
        cells = (measure, value, *interval, unit, round(float(totals[of].sum())))
        rows.append(dict(zip(types, cells, strict=True)))
    return PlainTable.of_records(rows, types)
