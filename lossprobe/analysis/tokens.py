"""Every token: its row and its text, streamed; and how the losses are spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa

from lossprobe.analysis.filters import where_sql
from lossprobe.analysis.texts import DocumentTexts, vocabulary_bytes
from lossprobe.errors import NothingToScoreError
from lossprobe.run.reader import Run
from lossprobe.run.schema import TOKEN_COLUMNS
from lossprobe.units import format_loss, plural, token_literal, visible_bytes

QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.99)
BIN_NATS = 0.25
HARD_SHARE = 0.1
STRIP_TOKENS = 240


@dataclass(frozen=True)
class TokenLosses:
    """How the losses of a run's tokens are spread.

    Attributes:
        where: the condition that rows had to meet, as SQL; "TRUE" for all.
        tokens: rows that meet it, scored or not.
        tokens_scored: those with a loss.
        mean_loss_nats: their mean loss.
        quantiles: share → loss in nats, such as {"0.5": 1.2}.
        hard_tokens_share_of_loss: share of the total loss that the hardest 10 % of tokens carry.
        table: the first rows: document, token, text (for display), token_id, context, loss_nats, rank, entropy_nats,
            top_text, top_prob.
        histogram: low_nats, high_nats, count; bins of 0.25 nats.
        strip: consecutive tokens around the hardest one: text, loss_nats (NaN when unscored).
    """

    where: str
    tokens: int
    tokens_scored: int
    mean_loss_nats: float
    quantiles: dict[str, float]
    hard_tokens_share_of_loss: float
    table: pd.DataFrame = field(repr=False)
    histogram: pd.DataFrame = field(repr=False)
    strip: pd.DataFrame = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        return (
            f"{plural(self.tokens_scored, 'token')} scored, mean loss {format_loss(self.mean_loss_nats)} nats, "
            f"median {self.quantiles['0.5']:.3f}; the hardest {HARD_SHARE:.0%} carry "
            f"{self.hard_tokens_share_of_loss:.0%} of the total loss"
        )


def measure_tokens(run: Run, where: Sequence[str] = (), rows: int = 20) -> TokenLosses:
    """Return how the losses of the tokens that meet every condition are spread, with the first rows.

    Raises:
        UsageError: a condition that cannot be read.
        NothingToScoreError: no scored token meets the conditions.
    """
    condition = where_sql(where)
    scored = f"FROM tokens WHERE unscored IS NULL AND {condition}"
    shares = ", ".join(str(share) for share in QUANTILES)
    summary = run.query(
        "SELECT count(*) AS n, avg(loss_nats::DOUBLE) AS mean, "
        f"quantile_cont(loss_nats::DOUBLE, [{shares}]) AS q {scored}"
    ).iloc[0]
    if summary["n"] == 0:
        raise NothingToScoreError("tokens.none", f"no scored token meets {condition}")
    hard = run.scalar(
        f"SELECT sum(loss_nats::DOUBLE) FROM (SELECT loss_nats {scored} ORDER BY loss_nats DESC "
        f"LIMIT {max(1, round(HARD_SHARE * summary['n']))})"
    )
    total = float(summary["mean"]) * int(summary["n"])
    histogram = run.query(
        f"SELECT floor(loss_nats / {BIN_NATS}) * {BIN_NATS} AS low_nats, count(*) AS count {scored} "
        "GROUP BY 1 ORDER BY 1"
    )
    histogram.insert(1, "high_nats", histogram["low_nats"] + BIN_NATS)
    return TokenLosses(
        where=condition,
        tokens=int(run.scalar(f"SELECT count(*) FROM tokens WHERE {condition}")),
        tokens_scored=int(summary["n"]),
        mean_loss_nats=float(summary["mean"]),
        quantiles={str(share): float(value) for share, value in zip(QUANTILES, summary["q"], strict=True)},
        hard_tokens_share_of_loss=float(hard) / total if total else 0.0,
        table=first_rows(run, condition, rows),
        histogram=histogram,
        strip=strip_around_hardest(run, condition),
    )


def first_rows(run: Run, condition: str, rows: int) -> pd.DataFrame:
    """Return the first rows that meet a condition, with their texts for display."""
    frame = run.query(
        "SELECT document, token, token_id, byte_start, byte_stop, context, "
        "loss_nats, rank, entropy_nats, top_id, top_prob "
        f"FROM tokens WHERE {condition} ORDER BY document, token LIMIT {rows}"
    )
    vocabulary = vocabulary_bytes(run)
    frame.insert(2, "text", [visible_bytes(data) for data in _token_bytes(run, frame, vocabulary)])
    top = [None if pd.isna(index) else visible_bytes(vocabulary[int(index)]) for index in frame["top_id"]]
    frame.insert(len(frame.columns) - 1, "top_text", top)
    return frame.drop(columns=["byte_start", "byte_stop", "top_id"])


def strip_around_hardest(run: Run, condition: str) -> pd.DataFrame:
    """Return consecutive tokens of one document, the hardest one in their middle, with their text and loss."""
    at = run.query(
        f"SELECT document, token FROM tokens WHERE unscored IS NULL AND {condition} "
        "ORDER BY loss_nats DESC, document, token LIMIT 1"
    ).iloc[0]
    document, first = int(at["document"]), max(0, int(at["token"]) - STRIP_TOKENS // 2)
    frame = run.query(
        "SELECT document, token, token_id, byte_start, byte_stop, loss_nats FROM tokens "
        "WHERE document = ? AND token BETWEEN ? AND ? ORDER BY token",
        (document, first, first + STRIP_TOKENS - 1),
    )
    texts = [visible_bytes(data) for data in _token_bytes(run, frame, vocabulary_bytes(run))]
    return pd.DataFrame({"token": frame["token"], "text": texts, "loss_nats": frame["loss_nats"]})


def token_batches(run: Run, where: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Yield every stored column of the rows that meet every condition, with `text` as a JSON string literal.

    Memory does not grow with the run: rows come in batches, documents are read as the rows reach them.
    """
    columns = ", ".join(f'"{column.name}"' for column in TOKEN_COLUMNS)
    vocabulary = vocabulary_bytes(run)
    texts = DocumentTexts(run)
    at = [column.name for column in TOKEN_COLUMNS].index("token_id")
    for batch in run.batches(f"SELECT {columns} FROM tokens WHERE {where_sql(where)}"):
        document = batch.column("document").to_numpy()
        held = texts.load(int(document.min()), int(document.max())) if len(document) else {}
        columns_ = [batch.column(name).to_pylist() for name in ("document", "byte_start", "byte_stop", "token_id")]
        literals = [
            token_literal(held[d][start:stop] if d in held and stop > start else vocabulary[index])
            for d, start, stop, index in zip(*columns_, strict=True)
        ]
        arrays = batch.columns
        arrays.insert(at, pa.array(literals, pa.string()))
        names = batch.schema.names
        names.insert(at, "text")
        yield pa.RecordBatch.from_arrays(arrays, names=names)


def _token_bytes(run: Run, frame: pd.DataFrame, vocabulary: dict[int, bytes]) -> list[bytes]:
    """Return the bytes each row covers in its document; the vocabulary's where it has none, or no text is kept."""
    if not len(frame):
        return []
    held = DocumentTexts(run).load(int(frame["document"].min()), int(frame["document"].max()))
    rows = zip(frame["document"], frame["byte_start"], frame["byte_stop"], frame["token_id"], strict=True)
    return [
        held[int(d)][int(start) : int(stop)] if int(d) in held and stop > start else vocabulary[int(index)]
        for d, start, stop, index in rows
    ]
