"""What is hard in a text: classes of tokens, documents, files and values of a field."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lossprobe.analysis.findings.rule import Clue, FindingRule
from lossprobe.analysis.findings.words import against_rest, between, percent, with_interval
from lossprobe.units import plural, visible

if TYPE_CHECKING:
    from lossprobe.analysis.hardest import Hardest

CLASS_NATS, GROUP_NATS, DOCUMENT_NATS, DOCUMENT_DEVIATIONS = 2.0, 1.0, 2.0, 6.0
COPIED_NATS, COPIED_SHARE, FIRST_NATS = 0.5, 0.5, 2.0
DOCUMENT_TOKENS = 64  # scored ones of a document that is compared, or more
TWICE = 2.0  # as much of the loss as of the tokens
USUAL = ("word start", "word continuation")  # forms of which any text has half its tokens: no news
NOT_FIELDS = ("token", "type", "document", "class", "role", "turn", "part")


def _rows(result: Hardest) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in result.table.to_dict("records")]


def _tokens(rows: list[dict[str, Any]]) -> int:
    """Return how many tokens there are in all, from one of the rows."""
    return round(rows[0]["count"] / rows[0]["share_of_tokens"]) if rows and rows[0]["share_of_tokens"] else 0


def _classes(result: Hardest) -> Iterator[Clue]:
    if result.by != "class":
        return
    rows = [row for row in _rows(result) if row["kind"] == "form"]
    mean = sum(row["share_of_tokens"] * row["mean_loss_nats"] for row in rows)
    for place, row in enumerate(rows):
        if row["class"] in USUAL or row["share_of_loss"] < TWICE * row["share_of_tokens"]:
            continue
        difference, interval, clusters = against_rest(rows, place, mean)
        yield Clue(
            difference,
            f"{percent(row['share_of_loss'])} of the loss is in {percent(row['share_of_tokens'])} of the tokens: "
            f"{row['class']}, {with_interval(difference, interval)} above the others",
            interval, clusters, about=row["class"], looks=len(rows), tokens=_tokens(rows),
            share_of_loss=row["share_of_loss"],
        )  # fmt: skip


def _copied(result: Hardest) -> Iterator[Clue]:
    if result.by != "class":
        return
    rows = {row["class"]: row for row in _rows(result) if row["kind"] == "occurrence"}
    if not {"first", "repeat"} <= rows.keys():
        return
    first, repeat = rows["first"], rows["repeat"]
    if repeat["share_of_tokens"] < COPIED_SHARE or first["mean_loss_nats"] < FIRST_NATS:
        return
    value, interval = float(repeat["mean_loss_nats"]), between(repeat["low"], repeat["high"])
    yield Clue(
        value,
        f"{percent(repeat['share_of_tokens'])} of the tokens stood in the context before and cost "
        f"{with_interval(value, interval)}, first ones {first['mean_loss_nats']:.2f}: the text repeats itself",
        interval, int(repeat["clusters"]), tokens=_tokens([repeat]), share_of_loss=float(repeat["share_of_loss"]),
    )  # fmt: skip


def _groups(result: Hardest) -> Iterator[Clue]:
    if result.by in NOT_FIELDS:
        return
    rows = _rows(result)
    tokens = _tokens(rows)
    for place, row in enumerate(rows):
        if row["documents"] < 2 or row["share_of_tokens"] >= 1.0:
            continue
        difference, interval, clusters = against_rest(rows, place, result.total_nats / tokens)
        name = f"“{visible(row['group'], 40)}”" if row["group"] else "documents without the field"
        yield Clue(
            difference,
            f"{visible(result.by, 40)} {name}: {with_interval(difference, interval)} above the others, "
            f"{percent(row['share_of_loss'])} of the loss in {percent(row['share_of_tokens'])} of the tokens",
            interval, clusters, about=str(row["group"]), looks=result.group_count or len(rows), tokens=tokens,
            share_of_loss=float(row["share_of_loss"]), command=f"lossprobe hardest --by {shlex.quote(result.by)} RUN",
        )  # fmt: skip


def _documents(result: Hardest) -> Iterator[Clue]:
    found = result.outlier
    if found is None or found.deviations < DOCUMENT_DEVIATIONS:
        return
    value, interval = found.difference_nats, found.difference_nats_interval
    yield Clue(
        value,
        f"document {found.document} is {with_interval(value, interval)} above the others ({found.deviations:.0f} times "
        f"what {plural(found.documents, 'document')} usually differ), {percent(found.share_of_loss)} of the loss",
        interval, found.clusters, about=str(found.document), looks=found.documents,
        tokens=DOCUMENT_TOKENS * found.documents, share_of_loss=found.share_of_loss,
    )  # fmt: skip


HARDEST_RULES = (
    FindingRule(
        "hard-class", "note", "hardest", "one kind of token is far harder than the others", CLASS_NATS, "nats",
        "mean loss of a form of tokens minus that of all others; told of forms with twice as much of the loss "
        "as of the "
        "tokens, words aside",
        "2 nats are a factor of 7 in probability, more than classes of clean text differ by.",
        "Look at such tokens in their text: text in other scripts, numbers, broken characters, or special ids that the "
        "model never saw; lossprobe defects names what is broken.",
        "lossprobe hardest --by class RUN", _classes,
    ),
    FindingRule(
        "copied-text", "warning", "hardest", "the text repeats itself, and the model copies", COPIED_NATS, "nats",
        f"mean loss of tokens that stood in their context before; told where they are {COPIED_SHARE:.0%} or more and "
        f"first ones cost {FIRST_NATS:.0f} nats or more",
        "In prose, repeated words still cost 2 nats or so; below 0.5 they are copied.",
        "The loss says little of the language here: remove boilerplate and repeated passages (lossprobe defects lists "
        "them), or judge by first occurrences.",
        "lossprobe hardest --by class RUN", _copied, below=True,
    ),
    FindingRule(
        "hard-document", "warning", "hardest", "a single document is far harder than all others", DOCUMENT_NATS, "nats",
        "mean loss of the hardest document of 64 tokens or more minus that of all others; told where it also lies "
        f"{DOCUMENT_DEVIATIONS:.0f} times as far from the median as documents usually do (their median absolute "
        f"deviation)",
        "2 nats apart and far outside what documents differ by: it is another kind of text.",
        "Read it: another language, binary remains, a table, broken characters (lossprobe defects names them). "
        "If it does not belong, leave it out.",
        "lossprobe hardest --by document RUN", _documents,
    ),
    FindingRule(
        "hard-group", "note", "hardest", "the documents of one value of a field are harder than the others", GROUP_NATS,
        "nats", "mean loss of the documents with the value minus that of all others",
        "A factor of 2.7 in perplexity: the mean over such groups says little of any of them.",
        "Judge the groups one by one; a source that is far off is often broken or another language.",
        "lossprobe hardest --by FIELD RUN", _groups,
    ),
)  # fmt: skip
