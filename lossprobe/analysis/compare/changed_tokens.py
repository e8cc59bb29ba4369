"""The single tokens whose loss changed most from one run to another, with the text around them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.differences import finite_batches, transitions
from lossprobe.analysis.rows.paired import PairedRows
from lossprobe.analysis.rows.texts import texts_of
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import Run
from lossprobe.run.texts import load_vocabulary
from lossprobe.units import visible_bytes

KEPT = ("document", "token", "first_loss_nats", "second_loss_nats", "difference_nats", "transition")
COLUMNS = (
    "direction", "document", "token", "text", "first_loss_nats", "second_loss_nats", "difference_nats", "transition",
    "first_top_text", "second_top_text", "context", "before", "characters", "after",
)  # fmt: skip
NO_ROWS = pd.DataFrame({name: pd.Series(dtype=object if name == "transition" else float) for name in KEPT})


@dataclass
class ChangedTokens:
    """The most changed tokens of two runs.

    Attributes:
        tokens: tokens that both scored; left_out: tokens that only one of them scored.
        total_nats: sum of d, second − first.
        forgotten, learned: how many tokens, by `differences.TRANSITION_RULE`.
        table: the largest d, then the smallest; see `changes.Changes`.
        examples: the forgotten tokens with the largest d, then the learned ones with the smallest.
    """

    tokens: int = 0
    left_out: int = 0
    total_nats: float = 0.0
    forgotten: int = 0
    learned: int = 0
    table: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    examples: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)


class TokenChanges:
    """Finds the most changed tokens of rows that are given batch by batch.

    Args:
        top: how many of each kind.
    """

    def __init__(self, top: int) -> None:
        self._found, self._top = ChangedTokens(), top
        self._worse = self._better = self._forgotten = self._learned = NO_ROWS

    def add(self, rows: PairedRows) -> None:
        """Add rows of two runs with the values `nats`."""
        found, top, losses = self._found, self._top, rows.values["nats"]
        difference = losses[1] - losses[0]
        lost, gained = transitions(losses)
        found.tokens += len(difference)
        found.left_out += rows.left_out
        found.total_nats += float(difference.sum())
        found.forgotten += int(lost.sum())
        found.learned += int(gained.sum())
        self._worse = _largest(self._worse, rows, difference, top)
        self._better = _largest(self._better, rows, -difference, top)
        self._forgotten = _largest(self._forgotten, rows, np.where(lost, difference, 0.0), top)
        self._learned = _largest(self._learned, rows, np.where(gained, -difference, 0.0), top)

    def found(self, first: Run, second: Run) -> ChangedTokens:
        """Return what was found, with the texts of the runs."""
        self._found.table = _with_texts(first, second, [self._worse, self._better])
        self._found.examples = _with_texts(first, second, [self._forgotten, self._learned])
        return self._found


def changed_tokens(first: Run, second: Run, top: int) -> ChangedTokens:
    """Return the `top` tokens that got worse and better the most, and as many forgotten and learned ones.

    Among equal changes the earlier token comes first.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    changes = TokenChanges(top)
    for rows in finite_batches((first, second), {"nats": "loss_nats"}, find_clusters(first)):
        changes.add(rows)
    return changes.found(first, second)


def _largest(best: pd.DataFrame, rows: PairedRows, score: Floats, top: int) -> pd.DataFrame:
    """Return the `top` rows with the largest positive score among the best so far and a batch of later rows."""
    full = len(best) == top
    least = float(best["difference_nats"].abs().iloc[-1]) if full and top else 0.0
    chosen = np.flatnonzero(score > least)
    if not len(chosen) or not top:
        return best
    chosen = chosen[np.argsort(-score[chosen], kind="stable")[:top]]
    losses = rows.values["nats"][:, chosen]
    lost, gained = transitions(losses)
    kind = np.where(lost, "forgotten", np.where(gained, "learned", ""))
    values = (rows.document[chosen], rows.token[chosen], *losses, losses[1] - losses[0], kind.astype(object))
    added = pd.DataFrame(dict(zip(KEPT, values, strict=True)))
    joined = pd.concat([best, added], ignore_index=True) if len(best) else added
    order = np.argsort(-joined["difference_nats"].abs().to_numpy(float), kind="stable")[:top]
    return joined.iloc[order].reset_index(drop=True)


def _with_texts(first: Run, second: Run, parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return rows that got worse and rows that got better in one table, with texts and what both models expected."""
    names = ("worse", "better")
    held = [part.assign(direction=name) for part, name in zip(parts, names, strict=True) if len(part)]
    if not held:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.concat(held, ignore_index=True).astype({"document": np.int32, "token": np.int64})
    places = table.merge(_stored(first, table), on=["document", "token"], how="left", validate="one_to_one")
    other = table[["document", "token"]].merge(_stored(second, table), on=["document", "token"], how="left")
    vocabulary = load_vocabulary(first)
    for name, ids in (("first", places["top_id"]), ("second", other["top_id"])):
        table[f"{name}_top_text"] = [visible_bytes(vocabulary.entries[int(index)]) for index in ids]
    table["context"] = places["context"]
    table["text"], around = texts_of(first, places, vocabulary)
    for name in ("before", "characters", "after"):
        table[name] = [getattr(place, name) for place in around]
    return table[list(COLUMNS)]


def _stored(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Return where the tokens of a table stand and what a model expected there."""
    wanted = [table[name].tolist() for name in ("document", "token")]
    return run.query(
        "SELECT document, token, token_id, byte_start, byte_stop, context, top_id FROM tokens "
        "JOIN (SELECT unnest(?::INTEGER[]) AS document, unnest(?::BIGINT[]) AS token) USING (document, token)",
        wanted,
    )
