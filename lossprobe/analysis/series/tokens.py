"""The tokens of a series that are listed: those of one state, the clearest first, with the text around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.rows.paired import PairedRows
from lossprobe.analysis.rows.texts import Surroundings, surroundings
from lossprobe.analysis.series.states import FORGOTTEN, LEARNED, NEVER, STATES, UNSTABLE, TokenStates, token_states
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import Run
from lossprobe.run.texts import DocumentTexts, load_vocabulary
from lossprobe.units import visible_bytes

AROUND_BYTES = 32
STRIP_TOKENS = 240
RANKED_BY = {
    "learned": "those whose loss fell most from the first to the last checkpoint first",
    "unstable": "those with the most forgetting events first, then by the largest rise of their loss",
    "forgotten": "those whose loss rose most from its lowest to the last checkpoint first",
    "never": "those with the highest loss at the last checkpoint first",
}


@dataclass
class TokenLists:
    """The `top` tokens of one state, found batch by batch; among equal ones the earlier comes first.

    Attributes:
        state: one of `STATES`.
        top: how many to keep.
        place: document and token of each kept one, int64 [2, m].
        losses: float64 [K, m], their losses.
        clearest: (document, token) of the clearest forgotten token, or of the first token where none was forgotten.
    """

    state: str
    top: int
    place: np.ndarray = field(default_factory=lambda: np.zeros((2, 0), np.int64), repr=False)
    losses: Floats | None = field(default=None, repr=False)
    score: Floats = field(default_factory=lambda: np.zeros(0), repr=False)
    clearest: tuple[int, int] | None = None
    _rise: float = 0.0

    def add(self, rows: PairedRows, states: TokenStates) -> None:
        """Add rows with their states."""
        losses = rows.values["nats"]
        self._add_clearest(rows, losses, states)
        chosen = np.flatnonzero(states.last == STATES.index(self.state))
        score = clearness(losses[:, chosen], states.forgettings[chosen], self.state)
        if len(self.score) == self.top:
            better = score > self.score[-1]
            chosen, score = chosen[better], score[better]
        if not len(chosen):
            return
        best = np.argsort(-score, kind="stable")[: self.top]
        chosen = chosen[best]
        place = np.stack([rows.document[chosen].astype(np.int64), rows.token[chosen]])
        kept = np.zeros((len(losses), 0)) if self.losses is None else self.losses
        joined = np.concatenate([self.score, score[best]])
        order = np.argsort(-joined, kind="stable")[: self.top]
        self.score = joined[order]
        self.place = np.concatenate([self.place, place], axis=1)[:, order]
        self.losses = np.concatenate([kept, losses[:, chosen]], axis=1)[:, order]

    def _add_clearest(self, rows: PairedRows, losses: Floats, states: TokenStates) -> None:
        if self.clearest is None:
            self.clearest = int(rows.document[0]), int(rows.token[0])
        rise = np.where(states.last == FORGOTTEN, losses[-1] - losses.min(axis=0), 0.0)
        at = int(rise.argmax())
        if rise[at] > self._rise:
            self._rise = float(rise[at])
            self.clearest = int(rows.document[at]), int(rows.token[at])


def clearness(losses: Floats, forgettings: np.ndarray, state: str) -> Floats:
    """Return by what tokens of a state are ranked, float64 [n]; see `RANKED_BY`.

    Args:
        losses: float64 [K, n].
        forgettings: int64 [n].
        state: one of `STATES`.
    """
    if STATES.index(state) == LEARNED:
        score = losses[0] - losses[-1]
    elif STATES.index(state) == UNSTABLE:
        rise = (losses - np.minimum.accumulate(losses, axis=0)).max(axis=0)
        score = forgettings + rise / (1.0 + rise)  # the rise decides between equal counts only
    elif STATES.index(state) == NEVER:
        score = losses[-1]
    else:
        score = losses[-1] - losses.min(axis=0)
    return np.asarray(score, float)


def listed_tokens(run: Run, lists: TokenLists, steps: Sequence[int], learned_below: float) -> pd.DataFrame:
    """Return one row for each kept token, with its text; see `series.CheckpointSeries.tokens` for the columns."""
    losses = np.zeros((len(steps), 0)) if lists.losses is None else lists.losses
    states = token_states(losses, learned_below)
    table = pd.DataFrame({"document": lists.place[0].astype(np.int32), "token": lists.place[1]})
    table["state"] = [STATES[state] for state in states.last]
    table["learned_at_step"] = learned_steps(states, steps)
    table["forgettings"] = states.forgettings
    lowest = losses.argmin(axis=0)
    table["first_loss_nats"], table["last_loss_nats"] = losses[0], losses[-1]
    table["lowest_loss_nats"] = losses.min(axis=0, initial=np.inf)
    table["lowest_at_step"] = np.asarray(steps)[lowest]
    return _with_texts(run, table).assign(losses_nats=list(losses.T.tolist()))


def learned_steps(states: TokenStates, steps: Sequence[int]) -> pd.Series:
    """Return the step from which on each token stays below; missing where it is not below at the end."""
    known = states.learned_at >= 0
    return pd.Series(np.asarray(steps)[np.maximum(states.learned_at, 0)], dtype="Int64").where(known)


def _with_texts(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Return tokens with their context, their text and what stands around it."""
    wanted = [table[name].tolist() for name in ("document", "token")]
    stored = run.query(
        "SELECT document, token, token_id, byte_start, byte_stop, context FROM tokens "
        "JOIN (SELECT unnest(?::INTEGER[]) AS document, unnest(?::BIGINT[]) AS token) USING (document, token)",
        wanted,
    )
    places = table.merge(stored, on=["document", "token"], how="left", validate="one_to_one")
    in_order = places.sort_values("document", kind="stable")
    columns = [in_order[name].tolist() for name in ("document", "byte_start", "byte_stop", "token_id")]
    vocabulary, texts = load_vocabulary(run), {}
    for row, data, start, stop, index in zip(
        in_order.index, DocumentTexts(run).along(columns[0]), *columns[1:], strict=True
    ):
        token = visible_bytes(vocabulary.covered(data, start, stop, index))
        around = Surroundings(token, "", "") if data is None else surroundings(data, start, stop, AROUND_BYTES)
        texts[row] = (token, around.before, around.characters, around.after)
    made = pd.DataFrame(
        [texts[row] for row in table.index], table.index, ["text", "before", "characters", "after"], dtype=object
    )
    return pd.concat([table[["document", "token"]], made[["text"]], places[["context"]],
                      table.drop(columns=["document", "token"]), made.drop(columns="text")], axis=1)  # fmt: skip


def strip_of(runs: Sequence[Run], at: tuple[int, int], steps: Sequence[int], learned_below: float) -> pd.DataFrame:
    """Return consecutive tokens of one document around a token, with their text, state and the step they were learned.

    Returns:
        one row a token: token, text, state ("" where it has no loss), learned_at_step (missing where it is not below
        at the end).
    """
    document, first = at[0], max(0, at[1] - STRIP_TOKENS // 2)
    where = "FROM tokens WHERE document = ? AND token BETWEEN ? AND ? ORDER BY token"
    span = (document, first, first + STRIP_TOKENS - 1)
    frame = runs[0].query(f"SELECT token, token_id, byte_start, byte_stop {where}", span)
    losses = np.stack(
        [run.query(f"SELECT loss_nats::DOUBLE AS nats {where}", span)["nats"].to_numpy(float) for run in runs]
    )
    states = token_states(losses, learned_below)
    scored = ~np.isnan(losses).any(axis=0)
    vocabulary = load_vocabulary(runs[0])
    columns = [frame[name].tolist() for name in ("byte_start", "byte_stop", "token_id")]
    data = DocumentTexts(runs[0]).along([document] * len(frame))
    texts = [
        visible_bytes(vocabulary.covered(text, *row))
        for text, row in zip(data, zip(*columns, strict=True), strict=True)
    ]
    strip = pd.DataFrame({"token": frame["token"], "text": texts})
    strip["state"] = [STATES[state] if known else "" for state, known in zip(states.last, scored, strict=True)]
    strip["learned_at_step"] = learned_steps(states, steps).where(scored)
    return strip
