"""The hardest single tokens, vocabulary entries and documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lossprobe.analysis.clusters import find_clusters, grouped_losses
from lossprobe.analysis.texts import DocumentTexts, surroundings, vocabulary_bytes
from lossprobe.analysis.token_classes import class_source
from lossprobe.run.reader import Run
from lossprobe.units import plural, visible, visible_bytes

GROUPS = ("token", "type", "document", "class")
MIN_COUNT = 5
AROUND_BYTES = 32


@dataclass(frozen=True)
class Hardest:
    """What the model finds hardest.

    Attributes:
        by: "token", "type" (vocabulary entry), "document" or "class".
        total_nats: loss of all scored tokens, for shares.
        table: one row each, hardest first (classes: in a fixed order).
            By token: document, token, text, loss_nats, rank, top_text (what the model expected), top_prob, context,
            before, characters (the whole characters that the token is part of), after.
            By type: text, token_id, count, mean_loss_nats, total_nats, hardest_by ("total" or "mean"), share_of_loss.
            By document: document, source, line, tokens, mean_loss_nats, total_nats, share_of_loss, begins.
            By class: kind, class, count, share_of_tokens, mean_loss_nats, low, high, share_of_loss.
        notes: what a reader must know, one line each.
        finding: the result in one line.
    """

    by: str
    total_nats: float
    table: pd.DataFrame = field(repr=False)
    notes: list[str]
    finding: str


def find_hardest(run: Run, by: str = "token", top: int = 20, min_count: int = MIN_COUNT) -> Hardest:
    """Return the `top` hardest tokens, types, documents, or all classes.

    Args:
        run: the run.
        by: one of `GROUPS`.
        top: rows to return (types: this many by total and this many by mean).
        min_count: fewest occurrences of a type in the ranking by mean.
    """
    total = float(run.scalar("SELECT sum(loss_nats::DOUBLE) FROM tokens WHERE unscored IS NULL"))
    if by == "token":
        return _tokens(run, top, total)
    if by == "type":
        return _types(run, top, min_count, total)
    if by == "document":
        return _documents(run, top, total)
    return _classes(run, total)


def _tokens(run: Run, top: int, total: float) -> Hardest:
    rows = run.query(
        "SELECT document, token, token_id, byte_start, byte_stop, loss_nats, rank, top_id, top_prob, context "
        "FROM tokens "
        f"WHERE unscored IS NULL ORDER BY loss_nats DESC, document, token LIMIT {int(top)}"
    )
    vocabulary = vocabulary_bytes(run)
    texts = DocumentTexts(run)
    table = pd.DataFrame([_token_row(row, texts, vocabulary) for row in rows.to_dict("records")])
    share = float(rows["loss_nats"].astype(float).sum()) / total if total else 0.0
    first = table.iloc[0]
    finding = (
        f"the hardest {plural(len(table), 'token')} carry {share:.2%} of the total loss; hardest: "
        f"{first['characters']!r} at {first['loss_nats']:.2f} nats, the model expected {first['top_text']!r}"
    )
    return Hardest("token", total, table, [], finding)


def _token_row(row: dict[Any, Any], texts: DocumentTexts, vocabulary: dict[int, bytes]) -> dict[str, Any]:
    document, start, stop = int(row["document"]), int(row["byte_start"]), int(row["byte_stop"])
    data = texts.load(document, document).get(document)
    token = vocabulary[int(row["token_id"])] if data is None else data[start:stop]
    around = None if data is None else surroundings(data, start, stop, AROUND_BYTES)
    return {
        "document": document,
        "token": int(row["token"]),
        "text": visible_bytes(token),
        "loss_nats": row["loss_nats"],
        "rank": int(row["rank"]),
        "top_text": visible_bytes(vocabulary[int(row["top_id"])]),
        "top_prob": row["top_prob"],
        "context": int(row["context"]),
        "before": "" if around is None else around.before,
        "characters": visible_bytes(token) if around is None else around.characters,
        "after": "" if around is None else around.after,
    }


def _types(run: Run, top: int, min_count: int, total: float) -> Hardest:
    sums = """
        SELECT token_id, count(*) AS count, avg(loss_nats::DOUBLE) AS mean_loss_nats,
               sum(loss_nats::DOUBLE) AS total_nats
        FROM tokens WHERE unscored IS NULL GROUP BY token_id"""
    by_total = run.query(f"{sums} ORDER BY total_nats DESC, token_id LIMIT {int(top)}").assign(hardest_by="total")
    by_mean = run.query(
        f"{sums} HAVING count(*) >= {int(min_count)} ORDER BY mean_loss_nats DESC, token_id LIMIT {int(top)}"
    ).assign(hardest_by="mean")
    table = pd.concat([by_total, by_mean], ignore_index=True)
    vocabulary = vocabulary_bytes(run)
    table.insert(0, "text", [visible_bytes(vocabulary[int(index)]) for index in table["token_id"]])
    table["share_of_loss"] = table["total_nats"] / total if total else 0.0
    share = float(by_total["total_nats"].sum()) / total if total else 0.0
    finding = (
        f"{plural(len(by_total), 'vocabulary entry').replace('entrys', 'entries')} carry {share:.1%} of the total loss"
    )
    return Hardest("type", total, table, [f"ranked by mean: entries that occur at least {min_count} times"], finding)


def _documents(run: Run, top: int, total: float) -> Hardest:
    table = run.query(f"""
        SELECT document, source, line, count(*) AS tokens, avg(loss_nats::DOUBLE) AS mean_loss_nats,
               sum(loss_nats::DOUBLE) AS total_nats, any_value(left(text, 60)) AS begins
        FROM tokens JOIN documents USING (document) WHERE unscored IS NULL
        GROUP BY document, source, line ORDER BY mean_loss_nats DESC, document LIMIT {int(top)}""")
    table["share_of_loss"] = table["total_nats"] / total if total else 0.0
    table["source"] = [visible(source, 60) for source in table["source"]]
    begins = [visible(text, 60) if isinstance(text, str) else "" for text in table["begins"]]
    table = table.drop(columns="begins").assign(begins=begins)
    worst = table.iloc[0]
    finding = (
        f"hardest document: {worst['document']} (line {worst['line']}), {worst['mean_loss_nats']:.3f} nats a token"
    )
    return Hardest("document", total, table, [], finding)


def _classes(run: Run, total: float) -> Hardest:
    clusters = find_clusters(run)
    frames = []
    for kind in ("occurrence", "form"):
        frame = grouped_losses(run, clusters, kind, class_source())
        frames.append(frame.rename(columns={"key": "class"}).assign(kind=kind))
    table = pd.concat(frames, ignore_index=True)
    table["share_of_loss"] = table["total_nats"] / total if total else 0.0
    table["share_of_tokens"] = table["count"] / table.groupby("kind")["count"].transform("sum")
    columns = ["kind", "class", "count", "share_of_tokens", "mean_loss_nats", "low", "high", "share_of_loss"]
    form = table[table["kind"] == "form"].sort_values("mean_loss_nats").iloc[-1]
    finding = (
        f"hardest class: {form['class']}, {form['mean_loss_nats']:.3f} nats a token, "
        f"{form['share_of_tokens']:.1%} of the tokens and {form['share_of_loss']:.1%} of the loss"
    )
    return Hardest("class", total, table[columns], [clusters.note] if clusters.note else [], finding)
