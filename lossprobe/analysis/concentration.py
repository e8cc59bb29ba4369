"""Whether a token, a document, or a hundredth of the documents carries the loss of a text.

With s their share of the loss and t their share of the tokens, the mean loss L of the text is L · (1 − s) / (1 − t)
without them. They are named where s − t is above 20 points: then the loss of the rest is more than a fifth lower, and
the mean says little about it. Below 100 tokens one of them easily is so by chance: of 10 tokens with exponential
losses in one text of three, of 100 in one of 10⁸.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lossprobe.analysis.rows.clusters import document_clusters
from lossprobe.analysis.rows.fields import record_columns
from lossprobe.plain_table import PlainTable
from lossprobe.run.reader import Run
from lossprobe.units import format_count, plural, visible

EXCESS = 0.20
FEWEST_TOKENS = 100
FEW_DOCUMENTS = 0.01


@dataclass(frozen=True)
class Concentration:
    """The part of a text that carries more of the loss than of the tokens.

    Attributes:
        what: its name, such as "document 3 (line 4 of data.jsonl)".
        documents: how many documents it is, 1 for copies of one; None for a single token.
        share_of_loss: its part of the total loss.
        share_of_tokens: its part of the scored tokens.
        nll_nats_per_token_without: mean loss of the other tokens.
    """

    what: str
    documents: int | None
    share_of_loss: float
    share_of_tokens: float
    nll_nats_per_token_without: float

    @property
    def finding(self) -> str:
        """The result in a clause."""
        carry = "carry" if self.documents is not None and self.documents > 1 else "carries"
        return (
            f"{self.what} {carry} {self.share_of_loss:.1%} of the loss with {self.share_of_tokens:.1%} of the tokens: "
            f"{self.nll_nats_per_token_without:.3f} nats a token without {'them' if carry == 'carry' else 'it'}"
        )


def find_concentration(run: Run) -> Concentration | None:
    """Return the smallest part of a text that carries its loss, of a token, a document and 1 % of the documents."""
    sums = run.columns(
        "SELECT sum(loss_nats::DOUBLE) AS nats, count(*)::DOUBLE AS size FROM tokens WHERE unscored IS NULL"
    )
    total, tokens = sums["nats"].item(), sums["size"].item()
    if tokens < FEWEST_TOKENS or total <= 0:
        return None
    token = run.columns("""
        SELECT document, token, loss_nats::DOUBLE AS nats, 1.0 AS size FROM tokens WHERE unscored IS NULL
        ORDER BY loss_nats DESC, document, token LIMIT 1""")
    texts = _texts(run, total / tokens)
    several = int(texts["copies"].sum())
    candidates: tuple[tuple[Callable[[], str], int | None, PlainTable], ...] = (
        (lambda: f"one token (document {token['document'][0]}, token {token['token'][0]})", None, token),
        (lambda: _named(run, int(texts["document"][0]), int(texts["copies"][0])), 1, texts.head(1)),
        (lambda: f"{plural(several, 'document')} of {format_count(run.copies.documents)}", several, texts),
    )
    for named, count, rows in candidates:
        nats, size = float(rows["nats"].sum()), float(rows["size"].sum())
        if nats / total - size / tokens > EXCESS:
            return Concentration(named(), count, nats / total, size / tokens, (total - nats) / (tokens - size))
    return None


def _texts(run: Run, mean: float) -> PlainTable:
    """Return the hundredth of the different documents (at least one) that exceed the loss of as many tokens most.

    Copies of a text are taken together: `document` is the first of them.
    """
    most = max(1, int(FEW_DOCUMENTS * run.copies.distinct))
    return run.columns(f"""
        SELECT min(document) AS document, count(DISTINCT document) AS copies, sum(loss_nats::DOUBLE) AS nats,
               count(*)::DOUBLE AS size
        FROM tokens WHERE unscored IS NULL GROUP BY {document_clusters(run).sql}
        ORDER BY nats - {mean!r} * size DESC, document LIMIT {most}""")


def _named(run: Run, document: int, copies: int) -> str:
    found = run.columns(f"SELECT source, line{record_columns(run)} FROM documents WHERE document = {document}")
    row = {name: found[name][0] for name in found}
    name = f", id {visible(row['record_id'])}" if row.get("record_id") else ""
    times = f", there {copies} times" if copies > 1 else ""
    return f"document {document} (line {row['line']} of {visible(row['source'], 80)}{name}{times})"
