"""Declares every stored column of a run: its name, type, unit and meaning.

docs/pages/reference/columns.md and `lossprobe explain` are made from these declarations, so importing them must not
load Arrow. Increase `SCHEMA_VERSION` when a column changes its name, type or meaning: older runs are then refused
instead of misread. Version 1 came with lossprobe 0.1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
MANIFEST = "run.json"  # written last: a run without it is unfinished
PLAN = "plan.json"  # what an unfinished run is to score
PLAN_PARTS = "plan"  # folder of the planned rows and of the records of finished parts
CHECKED = ".checked"  # the state in which the files were last checked
DOCUMENTS = "documents.parquet"
VOCABULARY = "vocabulary.parquet"
PART_TABLES = ("tokens", "histogram", "ladder")  # each has one file for every part of the run
TABLES = (*PART_TABLES, "documents", "vocabulary")
ROUTING = "routing"  # one more table of parts, only in runs of a mixture of experts
ALL_TABLES = (*TABLES, ROUTING)
PAIR = "pair.json"  # of two runs together, instead of run.json
PAIR_PLAN = "pair-plan.json"  # what an unfinished pair is to measure
DIVERGENCE = "divergence"  # the one table of a pair, with a file for every part of its runs


@dataclass(frozen=True)
class Column:
    """One stored column.

    Attributes:
        name: its name in Parquet, CSV and JSON, and on axes.
        kind: the name of its Arrow type, or `WORDS` or `NAMES`; a name, so that declarations can be read without Arrow.
        meaning: one line that tells people what it holds.
        unit: unit of its values; "" without one.
    """

    name: str
    kind: str
    meaning: str
    unit: str = ""

    @property
    def type(self) -> pa.DataType:
        """Its Arrow type."""
        import pyarrow as pa

        indices = {WORDS: pa.int8(), NAMES: pa.int32()}.get(self.kind)
        return pa.type_for_alias(self.kind) if indices is None else pa.dictionary(indices, pa.string())


WORDS = "dictionary of strings"  # of which we write only a few
NAMES = "dictionary of any strings"  # that come from the text

PLANNED = (
    Column("document", "int32", "document number, from 0"),
    Column("token", "int64", "index of the token in its document, from 0, a BOS included"),
    Column("token_id", "int32", "number of the token in the vocabulary"),
    Column("byte_start", "int64", "first byte of the token in its document's UTF-8 bytes"),
    Column("byte_stop", "int64", "end of the token's bytes; spans tile the document"),
    Column("window", "int32", "number of the window that the token was scored in, counted over the run"),
    Column("context", "int32", "tokens the model saw before predicting this one, a BOS included"),
    Column(
        "unscored",
        WORDS,
        "why there is no loss: first_token (nothing stands before it), special (a control token), unknown (outside the "
        "vocabulary), masked; with another tool's windows also window_start, replaced, context_only, tail, truncated; "
        "empty when scored",
    ),
)

# Only in runs of conversations, completions and pairs, as the last columns.
LABELS = (
    Column("turn", "int32", "number of the message that the token belongs to, from 0; empty for none"),
    Column(
        "role",
        NAMES,
        "who speaks: system, user, assistant, tool, …; prompt or completion where the record is plain text; empty for "
        "what belongs to no message",
    ),
    Column(
        "part",
        WORDS,
        "what the token is: header, content, thinking, tool_call, end_of_turn, or template (anything else that the "
        "chat template writes)",
    ),
)

LABEL_NAMES = frozenset(column.name for column in LABELS)

MEASURED = (
    Column("loss_nats", "float", "loss of the token, −log p(token): 0 where the model was certain of it", "nats"),
    Column("rank", "int32", "vocabulary entries strictly more likely than the token; 0 = the model's first choice"),
    Column("ties", "int32", "vocabulary entries exactly as likely as the token, itself included"),
    Column(
        "entropy_nats",
        "float",
        "entropy of the predicted distribution, E[−log p]: the loss that the model itself expects",
        "nats",
    ),
    Column("varentropy", "float", "variance of −log p under the prediction", "nats²"),
    Column("top_id", "int32", "the model's first choice (the lowest id among equals)"),
    Column("top_prob", "float", "probability of the first choice"),
    Column(
        "margin_nats",
        "float",
        "logit of the token minus the best other logit; positive where the token is the first choice",
        "nats",
    ),
    Column("log_z", "float", "log-sum-exp of the logits (z-loss is its square)", "nats"),
    Column(
        "uniform_loss_nats",
        "float",
        "mean of −log p over the vocabulary: what label smoothing adds to the loss",
        "nats",
    ),
    Column(
        "sum_p2",
        "float",
        "Σ p² over the vocabulary: near 1 where the model is sure of one entry (Brier score, gradient norm)",
    ),
)

TOKEN_COLUMNS = PLANNED + MEASURED


def token_columns(*, labelled: bool) -> tuple[Column, ...]:
    """Return the columns of the tokens of a run; `labelled` says whether it has turns, roles and parts."""
    return TOKEN_COLUMNS + LABELS if labelled else TOKEN_COLUMNS


DOCUMENT_COLUMNS = (
    Column("document", "int32", "document number, from 0"),
    Column("source", "string", "file the document came from; - is standard input"),
    Column("line", "int64", "line of that file on which it starts, from 1"),
    Column("byte_offset", "int64", "offset of its first byte in that file; −1 in a JSONL"),
    Column("tokens", "int64", "tokens, a BOS included"),
    Column("scored_tokens", "int64", "tokens with a loss"),
    Column("bytes", "int64", "UTF-8 bytes"),
    Column("characters", "int64", "Unicode code points"),
    Column("words", "int64", "runs without white space"),
    Column("scored_bytes", "int64", "bytes of scored tokens"),
    Column("scored_characters", "int64", "characters whose first byte a scored token holds"),
    Column("scored_words", "int64", "words whose first byte a scored token holds"),
    Column("normalized_bytes", "int64", "bytes that the tokenizer dropped or rewrote"),
    Column("tiles", "bool", "false when the byte spans are a guess; bits per byte is then refused"),
    Column("fields", "string", "other fields of a JSONL record, as JSON; empty otherwise"),
    Column("text", "large_string", "the text; empty where the run keeps none"),
)

VOCABULARY_COLUMNS = (
    Column("token_id", "int32", "vocabulary id"),
    Column("bytes", "binary", "bytes the id stands for in running text; a special id's name"),
    Column("special", "bool", "whether it stands for no text of its own"),
)

HISTOGRAM_COLUMNS = (
    Column("document", "int32", "document number"),
    Column("bin", "int16", "bin of log10 p: 0 below 10^−12, then 10 bins a decade up to p = 1"),
    Column("pairs", "int64", "pairs (scored token, vocabulary entry) in the bin"),
    Column("sum_p", "double", "sum of their probabilities"),
    Column("hits", "int64", "pairs whose entry was the token"),
)

# A window is one row of a batch: its sums give the load-balancing loss of windows in any grouping.
ROUTING_COLUMNS = (
    Column("document", "int32", "document number"),
    Column("window", "int32", "number of the window, counted over the run"),
    Column("tokens", "int64", "tokens of the window that the routers saw: all, scored or not, with the last one"),
    Column("layer", "int16", "number of the router, from 0"),
    Column("expert", "int16", "number of the expert, from 0"),
    Column("probability", "float", "sum over these tokens of the router's probability of the expert"),
    Column("slots", "int32", "number of these tokens for which the router chose the expert"),
)


# One row for each row of `tokens` of the pair's runs, in the same order and parts; empty where there is no loss.
DIVERGENCES = (
    Column(
        "kl_nats",
        "double",
        "KL divergence of the predictions, Σ p_A log(p_A / p_B): 0 where both are equal; infinite where B excludes an "
        "entry that A does not",
        "nats",
    ),
    Column("same_top", "bool", "whether both models have the same first choice (the lowest id among equals)"),
    Column("target_prob_change", "double", "change of the token's own probability, p_B − p_A"),
    Column("first_loss_nats", "double", "loss of the token under model A", "nats"),
    Column("second_loss_nats", "double", "loss of the token under model B", "nats"),
)
PAIR_KEYS = (
    Column("document", "int32", "document number"),
    Column("token", "int64", "index of the token in its document"),
)
DIVERGENCE_COLUMNS = PAIR_KEYS + DIVERGENCES

LADDER_KEYS = (Column("document", "int32", "document number"), Column("token", "int64", "token index"))


def ladder_columns(temperatures: tuple[float, ...]) -> tuple[Column, ...]:
    """Return the columns of the temperature ladder: the keys of a sampled token, and log-sum-exp(z/T) for each T."""
    sums = (ladder_column(str(index), f"{temperature:.6g}") for index, temperature in enumerate(temperatures))
    return (*LADDER_KEYS, *sums)


def ladder_column(index: str, temperature: str) -> Column:
    """Return the column of the temperature ladder for one temperature, given its number and value as text."""
    return Column(f"log_z_t{index}", "double", f"log-sum-exp of z/T at T = {temperature}", "nats")


def columns_of(table: str, temperatures: int, *, labelled: bool = False) -> tuple[Column, ...]:
    """Return the columns of a table of a run, or of a pair of runs.

    Args:
        table: name of the table.
        temperatures: number of temperatures in the run's ladder.
        labelled: whether its tokens have turns, roles and parts.
    """
    return {
        "tokens": token_columns(labelled=labelled),
        "histogram": HISTOGRAM_COLUMNS,
        "ladder": ladder_columns((1.0,) * temperatures),
        "documents": DOCUMENT_COLUMNS,
        "vocabulary": VOCABULARY_COLUMNS,
        ROUTING: ROUTING_COLUMNS,
        DIVERGENCE: DIVERGENCE_COLUMNS,
    }[table]


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """Return the Arrow schema of some columns, marked with the schema version."""
    import pyarrow as pa

    return pa.schema([(column.name, column.type) for column in columns], metadata={"lossprobe": str(SCHEMA_VERSION)})
