"""What a run stores, column by column: names, types, units and meaning, declared once.

docs/pages/reference/columns.md shows these tables; a test compares them. `SCHEMA_VERSION` goes up when a column changes
its name, type or meaning; older runs are then refused, never misread.

Versions: 1 (0.1.0) first.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1
MANIFEST = "run.json"  # written last: a run counts only with it
PLAN = "plan.json"  # what an unfinished run is to score
CHECKED = ".checked"  # which state of its files was checked before a query
DOCUMENTS = "documents.parquet"
VOCABULARY = "vocabulary.parquet"
PART_TABLES = ("tokens", "histogram", "ladder")  # one file each for every part of the pass
TABLES = (*PART_TABLES, "documents", "vocabulary")


@dataclass(frozen=True)
class Column:
    """One stored column.

    Attributes:
        name: its name everywhere: Parquet, CSV, JSON, axes.
        type: its Arrow type.
        meaning: what it holds, with the unit, for people.
    """

    name: str
    type: pa.DataType
    meaning: str


UNSCORED_TYPE = pa.dictionary(pa.int8(), pa.string())

PLANNED = (
    Column("document", pa.int32(), "document number, from 0"),
    Column("token", pa.int64(), "index of the token in its document, from 0, a BOS included"),
    Column("token_id", pa.int32(), "vocabulary id"),
    Column("byte_start", pa.int64(), "first byte of the token in its document's UTF-8 bytes"),
    Column("byte_stop", pa.int64(), "end of the token's bytes; spans tile the document"),
    Column("window", pa.int32(), "window the token was scored in, counted over the run"),
    Column("context", pa.int32(), "tokens the model saw before predicting this one, a BOS included"),
    Column(
        "unscored",
        UNSCORED_TYPE,
        "why there is no loss: first_token, special, unknown, masked; with another tool's windows also window_start, "
        "replaced, context_only, tail, truncated; empty when scored",
    ),
)

MEASURED = (
    Column("loss_nats", pa.float32(), "−log p(token), in nats"),
    Column("rank", pa.int32(), "vocabulary entries strictly more likely; 0 = the model's first choice"),
    Column("ties", pa.int32(), "entries exactly as likely as the token, itself included"),
    Column("entropy_nats", pa.float32(), "entropy of the predicted distribution, E[−log p], in nats"),
    Column("varentropy", pa.float32(), "variance of −log p under the prediction, in nats²"),
    Column("top_id", pa.int32(), "the model's first choice (the lowest id among equals)"),
    Column("top_prob", pa.float32(), "probability of the first choice"),
    Column("margin_nats", pa.float32(), "logit of the token minus the best other logit, in nats"),
    Column("log_z", pa.float32(), "log-sum-exp of the logits (z-loss is its square), in nats"),
    Column("uniform_loss_nats", pa.float32(), "mean of −log p over the vocabulary (label smoothing), in nats"),
    Column("sum_p2", pa.float32(), "Σ p² over the vocabulary (Brier score, gradient norm)"),
)

TOKEN_COLUMNS = PLANNED + MEASURED

DOCUMENT_COLUMNS = (
    Column("document", pa.int32(), "document number, from 0"),
    Column("source", pa.string(), "file the document came from; - is standard input"),
    Column("line", pa.int64(), "line of that file on which it starts, from 1"),
    Column("byte_offset", pa.int64(), "offset of its first byte in that file; −1 in a JSONL"),
    Column("tokens", pa.int64(), "tokens, a BOS included"),
    Column("scored_tokens", pa.int64(), "tokens with a loss"),
    Column("bytes", pa.int64(), "UTF-8 bytes"),
    Column("characters", pa.int64(), "Unicode code points"),
    Column("words", pa.int64(), "runs without white space"),
    Column("scored_bytes", pa.int64(), "bytes of scored tokens"),
    Column("scored_characters", pa.int64(), "characters whose first byte a scored token holds"),
    Column("scored_words", pa.int64(), "words whose first byte a scored token holds"),
    Column("normalized_bytes", pa.int64(), "bytes that the tokenizer dropped or rewrote"),
    Column("tiles", pa.bool_(), "false when the byte spans are a guess; bits per byte is then refused"),
    Column("fields", pa.string(), "other fields of a JSONL record, as JSON; empty otherwise"),
    Column("text", pa.large_string(), "the text; empty with --no-text"),
)

VOCABULARY_COLUMNS = (
    Column("token_id", pa.int32(), "vocabulary id"),
    Column("bytes", pa.binary(), "bytes the id stands for in running text; a special id's name"),
    Column("special", pa.bool_(), "whether it stands for no text of its own"),
)

HISTOGRAM_COLUMNS = (
    Column("document", pa.int32(), "document number"),
    Column("bin", pa.int16(), "bin of log10 p: 0 below 10^−12, then 10 bins a decade up to p = 1"),
    Column("pairs", pa.int64(), "pairs (scored token, vocabulary entry) in the bin"),
    Column("sum_p", pa.float64(), "sum of their probabilities"),
    Column("hits", pa.int64(), "pairs whose entry was the token"),
)


def ladder_columns(temperatures: tuple[float, ...]) -> tuple[Column, ...]:
    """Return the columns of the temperature ladder: the sampled token, and log-sum-exp(z/T) for each T."""
    keys = (Column("document", pa.int32(), "document number"), Column("token", pa.int64(), "token index"))
    return keys + tuple(
        Column(f"log_z_t{index}", pa.float64(), f"log-sum-exp of z/T at T = {temperature:.6g}, in nats")
        for index, temperature in enumerate(temperatures)
    )


def columns_of(table: str, temperatures: int) -> tuple[Column, ...]:
    """Return the columns of a table of a run, whose ladder has so many temperatures."""
    return {
        "tokens": TOKEN_COLUMNS,
        "histogram": HISTOGRAM_COLUMNS,
        "ladder": ladder_columns((1.0,) * temperatures),
        "documents": DOCUMENT_COLUMNS,
        "vocabulary": VOCABULARY_COLUMNS,
    }[table]


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """Return the Arrow schema of some columns, marked with the schema version."""
    return pa.schema([(column.name, column.type) for column in columns], metadata={"lossprobe": str(SCHEMA_VERSION)})
