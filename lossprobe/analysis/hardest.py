"""The hardest single tokens, vocabulary entries and documents."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from lossprobe.analysis.options import HardestOptions
from lossprobe.analysis.rows.clusters import find_clusters, grouped_losses
from lossprobe.analysis.rows.texts import DocumentTexts, Surroundings, Vocabulary, load_vocabulary, surroundings
from lossprobe.analysis.rows.token_classes import class_source
from lossprobe.run.reader import Run
from lossprobe.units import plural, visible, visible_bytes

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


def find_hardest(
    run: Run, by: str = HardestOptions.by, top: int = HardestOptions.top, min_count: int = HardestOptions.min_count
) -> Hardest:
    """Return the `top` hardest tokens, types, documents, or all classes.

    Args:
        run: the run.
        by: one of `HARDEST_BY` of `analysis.options`.
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
    ).astype({"rank": "int32", "top_id": "int32"})
    vocabulary = load_vocabulary(run)
    texts, around = _texts_of(run, rows, vocabulary)
    table = rows[["document", "token", "loss_nats", "rank", "top_prob", "context"]].copy()
    table.insert(2, "text", texts)
    table.insert(5, "top_text", [visible_bytes(vocabulary.entries[index]) for index in rows["top_id"]])
    table["before"] = [place.before for place in around]
    table["characters"] = [place.characters for place in around]
    table["after"] = [place.after for place in around]
    share = float(rows["loss_nats"].astype(float).sum()) / total if total else 0.0
    first = table.iloc[0]
    finding = (
        f"the hardest {plural(len(table), 'token')} carry {share:.2%} of the total loss; hardest: "
        f"“{first['characters']}” at {first['loss_nats']:.2f} nats, the model expected “{first['top_text']}”"
    )
    return Hardest("token", total, table, [], finding)


def _texts_of(run: Run, rows: pd.DataFrame, vocabulary: Vocabulary) -> tuple[list[str], list[Surroundings]]:
    """Return the text of each row's token and what stands around it; documents are read once each, in order."""
    in_order = rows.sort_values("document", kind="stable")
    columns = [in_order[name].tolist() for name in ("document", "byte_start", "byte_stop", "token_id")]
    texts, around = {}, {}
    documents = DocumentTexts(run).along(columns[0])
    for at, data, start, stop, index in zip(in_order.index, documents, *columns[1:], strict=True):
        token = visible_bytes(vocabulary.covered(data, start, stop, index))
        texts[at] = token
        around[at] = Surroundings(token, "", "") if data is None else surroundings(data, start, stop, AROUND_BYTES)
    return [texts[at] for at in rows.index], [around[at] for at in rows.index]


def _types(run: Run, top: int, min_count: int, total: float) -> Hardest:
    sums = """
        SELECT token_id, count(*) AS count, avg(loss_nats::DOUBLE) AS mean_loss_nats,
               sum(loss_nats::DOUBLE) AS total_nats
        FROM tokens WHERE unscored IS NULL GROUP BY token_id"""
    by_total = run.query(f"{sums} ORDER BY total_nats DESC, token_id LIMIT {int(top)}").assign(hardest_by="total")
    by_mean = run.query(
        f"{sums} HAVING count(*) >= {int(min_count)} ORDER BY mean_loss_nats DESC, token_id LIMIT {int(top)}"
    ).assign(hardest_by="mean")
    table = pd.concat([by_total, by_mean], ignore_index=True) if len(by_mean) else by_total
    vocabulary = load_vocabulary(run)
    table.insert(0, "text", [visible_bytes(vocabulary.entries[int(index)]) for index in table["token_id"]])
    table["share_of_loss"] = table["total_nats"] / total if total else 0.0
    share = float(by_total["total_nats"].sum()) / total if total else 0.0
    finding = f"{plural(len(by_total), 'vocabulary entry')} carry {share:.1%} of the total loss"
    return Hardest("type", total, table, [f"ranked by mean: entries that occur at least {min_count} times"], finding)


def _documents(run: Run, top: int, total: float) -> Hardest:
    table = run.query(f"""
        SELECT document, source, line, scored AS tokens, mean_loss_nats, total_nats, left(text, 60) AS begins
        FROM documents JOIN (
            SELECT document, count(*) AS scored, avg(loss_nats::DOUBLE) AS mean_loss_nats,
                   sum(loss_nats::DOUBLE) AS total_nats
            FROM tokens WHERE unscored IS NULL
            GROUP BY document ORDER BY mean_loss_nats DESC, document LIMIT {int(top)}) USING (document)
        ORDER BY mean_loss_nats DESC, document""")
    table["share_of_loss"] = table["total_nats"] / total if total else 0.0
    table["source"] = [visible(source) for source in table["source"]]
    begins = [visible(text, 60) if isinstance(text, str) else "" for text in table.pop("begins")]
    table["begins"] = begins
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
