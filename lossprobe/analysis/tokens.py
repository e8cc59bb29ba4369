"""Every token: its row and its text, streamed; and how the losses are spread."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa

from lossprobe.analysis.options import TokenOptions
from lossprobe.analysis.rows.fields import why_none
from lossprobe.analysis.rows.ranked_values import ranked_batches, values_at
from lossprobe.analysis.rows.text_bytes import with_text_bytes
from lossprobe.analysis.shown import Shown
from lossprobe.errors import NothingToScoreError
from lossprobe.options.given import check_options
from lossprobe.run.argument import check_runs
from lossprobe.run.filters import refuse_labels, where_sql
from lossprobe.run.reader import Run
from lossprobe.run.schema import token_columns
from lossprobe.run.texts import DocumentTexts, Vocabulary, load_vocabulary
from lossprobe.units import format_count, format_loss, plural, visible_bytes

QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.99)
BIN_NATS = 0.25
HARD_SHARE = 0.1
STRIP_TOKENS = 240
WRITTEN_ROWS = 16_384  # all columns of so few stay in the processor's cache while they are written


@dataclass(frozen=True)
class TokenLosses(Shown):
    """How the losses of a run's tokens are spread.

    Attributes:
        where: the condition that rows had to meet, as SQL; "TRUE" for all.
        tokens: rows that meet it, scored or not.
        tokens_scored: those with a loss.
        mean_loss_nats: their mean loss.
        quantiles: share → loss in nats, such as {"0.5": 1.2}.
        hard_tokens_share_of_loss: share of the total loss that the hardest 10 % of tokens carry.
        table: the first rows: document, token, text (for display), token_id, context, loss_nats, rank, entropy_nats,
            top_text, top_prob; of conversations the first scored ones, with turn, role and part before the text.
        histogram: low_nats, high_nats, count; bins of 0.25 nats.
        strip: consecutive tokens around the hardest one: text, loss_nats (NaN when unscored); of conversations also
            turn, role and part.
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
        among = "" if self.where == "TRUE" else f" where {self.where.replace(chr(34), '')}"
        return (
            f"{plural(self.tokens_scored, 'token')} scored{among}, mean loss {format_loss(self.mean_loss_nats)} nats, "
            f"median {self.quantiles['0.5']:.3f}; the hardest {HARD_SHARE:.0%} carry "
            f"{self.hard_tokens_share_of_loss:.0%} of the total loss"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: how many tokens of conversations have no loss, and are not in the table."""
        unscored = self.tokens - self.tokens_scored
        if "role" not in self.table or not unscored:
            return ()
        what = f"{format_count(unscored)} of {plural(self.tokens, 'token')} have no loss, such as those of prompts"
        return (f"{what}; the terminal's table leaves them out",)


def measure_tokens(
    run: Run, where: str | Sequence[str] = TokenOptions.where, rows: int = TokenOptions.rows
) -> TokenLosses:
    """Return how the losses of the tokens that meet every condition are spread, with the first rows.

    Raises:
        UsageError: a condition that cannot be read.
        NothingToScoreError: no scored token meets the conditions.
    """
    check_runs(run=run)
    check_options(TokenOptions, where=where, rows=rows)
    conditions = [where] if isinstance(where, str) else where
    refuse_labels(conditions, labelled=run.labelled)
    condition = where_sql(conditions)
    scored = f"FROM tokens WHERE unscored IS NULL AND {condition}"
    summary = run.query(f"SELECT count(*) AS n, avg(loss_nats::DOUBLE) AS mean {scored}").iloc[0]
    count = int(summary["n"])
    if count == 0:
        hint = why_none(run, condition) if run.labelled else None
        raise NothingToScoreError("tokens.none", f"no scored token meets {condition}", hint=hint)
    quantiles, hard = loss_spread(run, scored, count)
    total = float(summary["mean"]) * count
    histogram = run.query(
        f"SELECT floor(loss_nats / {BIN_NATS}) * {BIN_NATS} AS low_nats, count(*) AS count {scored} "
        "GROUP BY 1 ORDER BY 1"
    )
    histogram.insert(1, "high_nats", histogram["low_nats"] + BIN_NATS)
    return TokenLosses(
        where=condition,
        tokens=int(run.scalar(f"SELECT count(*) FROM tokens WHERE {condition}")),
        tokens_scored=count,
        mean_loss_nats=float(summary["mean"]),
        quantiles=quantiles,
        hard_tokens_share_of_loss=hard / total if total else 0.0,
        table=first_rows(run, condition, rows),
        histogram=histogram,
        strip=strip_around_hardest(run, condition),
    )


def loss_spread(run: Run, scored: str, count: int) -> tuple[dict[str, float], float]:
    """Return the quantiles of the losses, and the sum of the hardest tenth, in memory that does not grow with the rows.

    Between two losses a quantile is interpolated linearly, as numpy does by default.

    Args:
        run: the run.
        scored: SQL from FROM on, the rows to read.
        count: how many they are.
    """
    places = {share: share * (count - 1) for share in QUANTILES}
    wanted = sorted({rank for place in places.values() for rank in (math.floor(place), math.ceil(place))})
    first_hard = count - max(1, round(HARD_SHARE * count))
    at: dict[int, float] = {}
    hard = 0.0
    spans = [*(range(rank, rank + 1) for rank in wanted), range(first_hard, count)]
    for first, losses in ranked_batches(run, "loss_nats", scored, spans):
        at |= values_at(wanted, first, losses)
        hard += float(losses[max(0, first_hard - first) :].sum())
    quantiles = {}
    for share, place in places.items():
        low, high = at[math.floor(place)], at[math.ceil(place)]
        quantiles[str(share)] = low + (high - low) * (place - math.floor(place))
    return quantiles, hard


def first_rows(run: Run, condition: str, rows: int) -> pd.DataFrame:
    """Return the first rows that meet a condition, with their texts for display; of conversations the scored ones."""
    labels = "turn, role, part, " if run.labelled else ""
    condition = f"unscored IS NULL AND {condition}" if run.labelled else condition
    frame = run.query(
        f"SELECT document, token, {labels}token_id, byte_start, byte_stop, context, "
        "loss_nats, rank, entropy_nats, top_id, top_prob "
        f"FROM tokens WHERE {condition} ORDER BY document, token LIMIT {int(rows)}"
    )
    whole = ["rank", "top_id", *(["turn"] if run.labelled else [])]  # whole numbers, also beside missing ones
    frame = frame.astype(dict.fromkeys(whole, "Int32"))
    vocabulary = load_vocabulary(run)
    frame.insert(5 if run.labelled else 2, "text", _display_texts(run, frame, vocabulary))
    top = [None if index is pd.NA else visible_bytes(vocabulary.entries[index]) for index in frame["top_id"]]
    frame.insert(len(frame.columns) - 1, "top_text", top)
    return frame.drop(columns=["byte_start", "byte_stop", "top_id"])


def strip_around_hardest(run: Run, condition: str) -> pd.DataFrame:
    """Return consecutive tokens of one document, the hardest one in their middle, with their text and loss."""
    at = run.query(
        f"SELECT document, token FROM tokens WHERE unscored IS NULL AND {condition} "
        "ORDER BY loss_nats DESC, document, token LIMIT 1"
    ).iloc[0]
    document, first = int(at["document"]), max(0, int(at["token"]) - STRIP_TOKENS // 2)
    labels = "turn, role, part, " if run.labelled else ""
    frame = run.query(
        f"SELECT document, token, {labels}token_id, byte_start, byte_stop, loss_nats FROM tokens "
        "WHERE document = ? AND token BETWEEN ? AND ? ORDER BY token",
        (document, first, first + STRIP_TOKENS - 1),
    )
    texts = _display_texts(run, frame, load_vocabulary(run))
    shown = [name for name in ("token", "turn", "role", "part", "loss_nats") if name in frame]
    strip = frame[shown].copy()
    strip.insert(1, "text", texts)
    return strip


def token_batches(run: Run, where: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Yield every stored column of the rows that meet every condition, with `text` as the bytes that the token covers.

    Memory does not grow with the run: rows come in batches, documents are read as the rows reach them.
    """
    stored = [f'"{column.name}"' for column in token_columns(labelled=run.labelled)]
    sql = f"SELECT {', '.join(stored)} FROM tokens WHERE {where_sql(where)}"
    # Not read ahead: who writes them works beside the reading already.
    return with_text_bytes(run, run.batches(sql, ahead=False, rows=WRITTEN_ROWS))


def _display_texts(run: Run, frame: pd.DataFrame, vocabulary: Vocabulary) -> list[str]:
    """Return what each row covers in its document, for display; the vocabulary entry where no text is kept."""
    documents, *rows = (frame[name].tolist() for name in ("document", "byte_start", "byte_stop", "token_id"))
    return [
        visible_bytes(vocabulary.covered(data, start, stop, index))
        for data, start, stop, index in zip(DocumentTexts(run).along(documents), *rows, strict=True)
    ]
