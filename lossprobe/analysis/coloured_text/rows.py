"""Reads the rows that a page shows: of one run, and the losses of another one beside them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.coloured_text.chosen import ChosenWindows
from lossprobe.analysis.rows.token_classes import FORMS, class_source
from lossprobe.errors import NotComparableError
from lossprobe.run.reader import Run
from lossprobe.units import visible

MOST_REASONS = 16  # codes of a byte that are left for them


def read_rows(run: Run, shown: ChosenWindows) -> tuple[pd.DataFrame, list[str]]:
    """Return the shown tokens in text order, and the names of the roles.

    Columns: document, token, token_id, byte_start, byte_stop, context, loss_nats, rank, entropy_nats, top_id and
    top_prob as stored, reason (index of why it has no loss into `attrs["reasons"]`, −1 with a loss), form (index into
    `FORMS`), repeated (whether the same id was in the context), why (index into `chosen.REASONS`); and of
    conversations turn (−1 for none), role (index into the second result, −1 for none) and part.
    """
    reasons = _words(run, "unscored")
    assert len(reasons) <= MOST_REASONS, reasons
    roles = _words(run, "role") if run.labelled else []
    parameters: list[object] = [reasons, list(FORMS)]
    labels = ""
    if run.labelled:
        labels = ", coalesce(turn, -1) AS turn, coalesce(list_position(?::VARCHAR[], role::VARCHAR), 0) - 1 AS role, "
        labels += "part::VARCHAR AS part"
        parameters.append(roles)
    frame = run.query(
        f"""
        SELECT document, token, token_id, byte_start, byte_stop, context, loss_nats, rank, entropy_nats,
               top_id, top_prob,
               coalesce(list_position(?::VARCHAR[], unscored::VARCHAR), 0) - 1 AS reason,
               list_position(?::VARCHAR[], form) - 1 AS form, occurrence = 'repeat' AS repeated, why{labels}
        FROM {_source(shown)} ORDER BY document, token""",
        (*parameters, *_parameters(shown)),
    )
    frame.attrs["reasons"] = reasons
    return frame, roles


def other_losses(run: Run, other: Run, rows: pd.DataFrame, shown: ChosenWindows) -> npt.NDArray[np.float64]:
    """Return the losses of another run of the same tokens, float64 [N]; NaN where it has none.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
    """
    chosen = rows[["document", "token"]]
    source, parameters = "tokens", []
    if shown.blocks is not None:  # its windows may be others, so that the tokens themselves are named
        documents = sorted(set(chosen["document"].tolist()))
        source, parameters = "tokens WHERE document IN (SELECT unnest(?::INTEGER[]))", [documents]
    found = other.query(
        f"SELECT document, token, token_id, loss_nats FROM {source} ORDER BY document, token", parameters
    )
    if shown.blocks is not None:
        found = chosen.merge(found, on=["document", "token"], how="left")
    same = len(found) == len(rows) and all(
        np.array_equal(found[name].to_numpy(), rows[name].to_numpy()) for name in ("document", "token", "token_id")
    )
    if not same:
        raise NotComparableError(
            "runs.different_tokens",
            f"{visible(run.name, 80)} and {visible(other.name, 80)} did not score the same tokens",
            hint="score both with the same text and options",
        )
    return found["loss_nats"].to_numpy(np.float64)


def _words(run: Run, column: str) -> list[str]:
    found = run.query(f"SELECT DISTINCT {column}::VARCHAR AS word FROM tokens WHERE {column} IS NOT NULL ORDER BY 1")
    return [str(word) for word in found["word"]]


def _source(shown: ChosenWindows) -> str:
    """Return SQL for the shown rows with their classes and `why`; those of windows need `_parameters`."""
    if shown.blocks is None:
        return f"(SELECT *, 0 AS why FROM {class_source()})"
    documents = ", ".join(str(number) for number in sorted(set(shown.blocks["document"].tolist())))
    classes = class_source(f"document IN ({documents})")
    chosen = """SELECT unnest(?::INTEGER[]) AS document, unnest(?::INTEGER[]) AS "window",
        unnest(?::BIGINT[]) AS block, unnest(?::INTEGER[]) AS why"""
    placed = f"SELECT *, token // {shown.cut} AS block FROM {classes}"
    return f"""(SELECT placed.*, why FROM ({placed}) AS placed JOIN ({chosen}) USING (document, "window", block))"""


def _parameters(shown: ChosenWindows) -> list[list[int]]:
    if shown.blocks is None:
        return []
    return [shown.blocks[name].tolist() for name in ("document", "window", "block", "why")]
