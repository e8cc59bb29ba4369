"""The hardest single tokens, vocabulary entries, documents, classes, and values of a field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.document_outlier import DocumentOutlier, document_outlier
from lossprobe.analysis.options import HardestOptions
from lossprobe.analysis.rows.clusters import find_clusters, grouped_losses, slice_clusters, slice_notes
from lossprobe.analysis.rows.fields import field_source, with_records
from lossprobe.analysis.rows.texts import Surroundings, texts_of
from lossprobe.analysis.rows.token_classes import class_source
from lossprobe.analysis.shown import Tabled
from lossprobe.options.given import check_options
from lossprobe.plain_table import PlainTable, Table
from lossprobe.run.argument import check_runs
from lossprobe.run.reader import Run
from lossprobe.run.texts import load_vocabulary
from lossprobe.units import plural, visible, visible_bytes

if TYPE_CHECKING:
    import pandas as pd

MOST_EQUAL = 64  # times as many rows as are wanted are looked through for different ones
FEWEST_TOKENS = 2  # of a document that is ranked: the loss of one token is that token's


@dataclass(frozen=True)
class Hardest(Tabled):
    """The tokens, types, documents, classes or field values with the highest loss.

    Attributes:
        by: "token", "type" (vocabulary entry), "document", "class", or a field of the JSONL records.
        total_nats: loss of all scored tokens, for shares.
        rows: one row each, hardest first.
            By token: document, token, text, loss_nats, rank, top_text (what the model expected), top_prob, context,
            before, characters (the whole characters that the token is part of), after; and where some of the hardest
            tokens are the same one in the same text, count (how many; the row is the hardest of them).
            By type: text, token_id, count, mean_loss_nats, total_nats, hardest_by ("total" or "mean"), share_of_loss.
            By document: document, source, line, tokens, mean_loss_nats, total_nats, share_of_loss, begins, and
            record_id and record_source where records have the fields id and source.
            By class: kind, class, count, share_of_tokens, mean_loss_nats, low, high, share_of_loss, clusters (documents
            or blocks that have such tokens).
            By a field: group, documents, count, share_of_tokens, mean_loss_nats, low, high, share_of_loss, clusters.
        notes: what a reader must know, one line each.
        finding: the result in one line.
        outlier: by document, the hardest one against all others; None by anything else, and with fewer than ten
            documents to compare.
        group_count: how many classes, or values of the field, there are; None by anything else.
    """

    by: str
    total_nats: float
    rows: Table = field(repr=False)
    notes: list[str]
    finding: str
    outlier: DocumentOutlier | None = None
    group_count: int | None = None


def find_hardest(
    run: Run, by: str = HardestOptions.by, top: int = HardestOptions.top, min_count: int = HardestOptions.min_count
) -> Hardest:
    """Return the `top` hardest tokens, types, documents or values of a field, or all classes.

    Args:
        run: the run.
        by: one of `HARDEST_BY` of `analysis.options`, or a field of the JSONL records.
        top: rows to return (types: this many by total and this many by mean).
        min_count: fewest occurrences of a type in the ranking by mean.

    Raises:
        UsageError: no document has that field.
    """
    check_runs(run=run)
    check_options(HardestOptions, by=by, top=top, min_count=min_count)
    total = float(run.scalar("SELECT sum(loss_nats::DOUBLE) FROM tokens"))  # null of what is not scored
    if by == "token":
        return _tokens(run, top, total)
    if by == "type":
        return _types(run, top, min_count, total)
    if by == "document":
        return _documents(run, top, total)
    return _classes(run, total) if by == "class" else _fields(run, by, top, total)


def _tokens(run: Run, top: int, total: float) -> Hardest:
    vocabulary = load_vocabulary(run)
    wanted = top
    while True:  # until there are enough different ones
        rows = _hardest_rows(run, wanted)
        expected = [visible_bytes(vocabulary.entries[index]) for index in rows["top_id"].tolist()]
        table = _grouped(rows.assign(top_text=np.array(expected, object)), *texts_of(run, rows, vocabulary))
        if len(table) >= top or len(rows) < wanted or wanted >= MOST_EQUAL * top:
            break
        wanted *= 2
    table = table.head(top)
    counted, nats = int(table["count"].sum()), float(table["nats"].sum())
    share = nats / total if total else 0.0
    first = {name: table[name][0] for name in table}
    of = f" ({len(table)} different ones)" if counted > len(table) else ""
    table = table.drop(columns=["nats"] if of else ["nats", "count"])
    carry = "carries" if counted == 1 else "carry"
    finding = (
        f"the hardest {plural(counted, 'token')}{of} {carry} {share:.2%} of the total loss; hardest: "
        f"“{first['characters']}” at {first['loss_nats']:.2f} nats, the model expected “{first['top_text']}”"
    )
    return Hardest("token", total, table, [], finding)


def _hardest_rows(run: Run, count: int) -> PlainTable:
    return run.columns(
        "SELECT document, token, token_id, byte_start, byte_stop, loss_nats, rank, top_id, top_prob, context "
        "FROM tokens "
        f"WHERE unscored IS NULL ORDER BY loss_nats DESC, document, token LIMIT {int(count)}"
    )


def _grouped(rows: PlainTable, texts: list[str], around: list[Surroundings]) -> PlainTable:
    """Return one row for each token in its text, with how often it is among the rows, and the sum of its losses.

    Without a stored text nothing is known to be equal.
    """
    groups: dict[tuple[int, Surroundings, int], list[int]] = {}
    for at, (token_id, place) in enumerate(zip(rows["token_id"].tolist(), around, strict=True)):
        alone = at if not place.before + place.after else -1
        groups.setdefault((token_id, place, alone), []).append(at)
    first = [places[0] for places in groups.values()]
    losses = rows["loss_nats"].astype(float)
    words = {name: _texts([getattr(around[at], name) for at in first]) for name in ("before", "characters", "after")}
    columns: dict[str, npt.NDArray[Any]] = {
        "document": rows["document"][first], "token": rows["token"][first], "text": _texts([texts[at] for at in first]),
        **{name: rows[name][first] for name in ("loss_nats", "rank", "top_text", "top_prob", "context")}, **words,
        "count": np.array([len(places) for places in groups.values()]),
        "nats": np.array([losses[places].sum() for places in groups.values()]),
    }  # fmt: skip
    return PlainTable(columns)


def _texts(texts: list[str]) -> npt.NDArray[Any]:
    return np.array(texts, object)


def _types(run: Run, top: int, min_count: int, total: float) -> Hardest:
    import pandas as pd

    types = run.query("""
        SELECT token_id, count(loss_nats) AS count, avg(loss_nats::DOUBLE) AS mean_loss_nats,
               sum(loss_nats::DOUBLE) AS total_nats
        FROM tokens GROUP BY token_id HAVING count(loss_nats) > 0 ORDER BY token_id""")  # null of what is not scored
    by_total = types.nlargest(top, "total_nats").assign(hardest_by="total")
    by_mean = types[types["count"] >= min_count].nlargest(top, "mean_loss_nats").assign(hardest_by="mean")
    table = pd.concat([by_total, by_mean], ignore_index=True) if len(by_mean) else by_total
    vocabulary = load_vocabulary(run)
    table.insert(0, "text", [visible_bytes(vocabulary.entries[int(index)]) for index in table["token_id"]])
    table["share_of_loss"] = table["total_nats"] / total if total else 0.0
    share = float(by_total["total_nats"].sum()) / total if total else 0.0
    carry = "carries" if len(by_total) == 1 else "carry"
    finding = f"{plural(len(by_total), 'vocabulary entry')} {carry} {share:.1%} of the total loss"
    return Hardest("type", total, table, [f"ranked by mean: entries that occur at least {min_count} times"], finding)


def _documents(run: Run, top: int, total: float) -> Hardest:
    per_document = """
        SELECT document, count(*) AS scored, avg(loss_nats::DOUBLE) AS mean_loss_nats,
               sum(loss_nats::DOUBLE) AS total_nats
        FROM tokens WHERE unscored IS NULL GROUP BY document"""
    table = run.query(f"""
        SELECT document, source, line, scored AS tokens, mean_loss_nats, total_nats, left(text, 60) AS begins
        FROM documents JOIN ({per_document} HAVING count(*) >= {FEWEST_TOKENS}
            ORDER BY mean_loss_nats DESC, document LIMIT {int(top)}) USING (document)
        ORDER BY mean_loss_nats DESC, document""")
    table["share_of_loss"] = table["total_nats"] / total if total else 0.0
    table["source"] = [visible(source) for source in table["source"]]
    begins = [visible(text, 60) if isinstance(text, str) else "" for text in table.pop("begins")]
    table["begins"] = begins
    table = with_records(run, table)
    single = int(run.scalar(f"SELECT count(*) FROM ({per_document}) WHERE scored < {FEWEST_TOKENS}"))
    notes = [f"{plural(single, 'document')} of a single scored token not ranked"] if single else []
    if not len(table):
        return Hardest("document", total, table, notes, "no document of two scored tokens")
    worst = table.iloc[0]
    name = f", id {worst['record_id']}" if worst.get("record_id") else ""
    finding = (
        f"hardest document: {worst['document']} (line {worst['line']} of {worst['source']}{name}), "
        f"{worst['mean_loss_nats']:.3f} nats a token"
    )
    return Hardest("document", total, table, notes, finding, document_outlier(run))


def _classes(run: Run, total: float) -> Hardest:
    import pandas as pd

    clusters = find_clusters(run)
    frames = []
    for kind in ("occurrence", "form"):
        frame = grouped_losses(run, clusters, kind, class_source())
        frames.append(_with_shares(frame.rename(columns={"key": "class"}), total).assign(kind=kind))
    table = pd.concat(frames, ignore_index=True)
    columns = [
        "kind", "class", "count", "share_of_tokens", "mean_loss_nats", "low", "high", "share_of_loss", "clusters",
    ]  # fmt: skip
    form = table[table["kind"] == "form"].iloc[0]
    finding = (
        f"hardest class: {form['class']}, {form['mean_loss_nats']:.3f} nats a token, "
        f"{form['share_of_tokens']:.1%} of the tokens and {form['share_of_loss']:.1%} of the loss"
    )
    return Hardest(
        "class", total, table[columns], [clusters.note] if clusters.note else [], finding, group_count=len(table)
    )


def _fields(run: Run, name: str, top: int, total: float) -> Hardest:
    source, clusters = field_source(run, name), slice_clusters(run, name)
    table = _with_shares(grouped_losses(run, clusters, "field", source).rename(columns={"key": "group"}), total)
    sizes = run.query(f"""
        SELECT field AS "group", count(DISTINCT document) AS documents FROM {source}
        WHERE unscored IS NULL GROUP BY ALL""")
    table = table.merge(sizes, on="group", validate="one_to_one")
    several = table[table["documents"] > 1]
    worst = (several if len(several) else table).iloc[0]  # one document is no group
    field_name = visible(name, 40)
    group = f"“{visible(worst['group'], 40)}”" if worst["group"] else f"documents without {field_name}"
    finding = (
        f"hardest {field_name}: {group}, {worst['mean_loss_nats']:.3f} nats a token, "
        f"{worst['share_of_tokens']:.1%} of the tokens and {worst['share_of_loss']:.1%} of the loss"
        f" in {plural(int(worst['documents']), 'document')}"
    )
    columns = [
        "group", "documents", "count", "share_of_tokens", "mean_loss_nats", "low", "high", "share_of_loss", "clusters",
    ]  # fmt: skip
    notes = [*([clusters.note] if clusters.note else []), *slice_notes(run, name)]
    return Hardest(name, total, table[columns].head(top), notes, finding, group_count=len(table))


def _with_shares(losses: pd.DataFrame, total: float) -> pd.DataFrame:
    """Return the rows of `grouped_losses`, hardest first, with their shares of the loss and of the tokens."""
    shares = losses.assign(
        share_of_loss=losses["total_nats"] / total if total else 0.0,
        share_of_tokens=losses["count"] / losses["count"].sum(),
    )
    return shares.sort_values("mean_loss_nats", ascending=False, kind="stable", ignore_index=True)
