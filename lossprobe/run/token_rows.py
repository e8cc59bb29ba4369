"""Reads the tokens of a run as a frame, with the text that each token covers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from lossprobe.arguments import as_strings
from lossprobe.errors import UsageError
from lossprobe.run.filters import refuse_labels, where_sql
from lossprobe.run.schema import token_columns
from lossprobe.run.texts import DocumentTexts, Readable, load_vocabulary

if TYPE_CHECKING:
    import pandas as pd

SPANS = ("document", "byte_start", "byte_stop", "token_id")
# Nullable integers: tokens without a loss have no value here, and plain integers would become floats.
WHOLE = dict.fromkeys(("rank", "ties", "top_id", "turn"), "Int32")


def token_rows(run: Readable, text: bool, columns: Sequence[str] | None, where: str | Sequence[str]) -> pd.DataFrame:
    """Return one row a token; arguments and errors as in `Run.tokens`."""
    known = [column.name for column in token_columns(labelled=run.labelled)]
    names = list(known) if columns is None else as_strings("columns", columns)
    if columns is not None and "text" in names:
        text = True
    stored = [name for name in dict.fromkeys(names) if name != "text"]
    unknown = [name for name in stored if name not in known]
    if unknown:
        raise UsageError(
            "argument.unknown", f"`columns`: {unknown[0]!r} is no column", hint=f"columns: text, {', '.join(known)}"
        )
    conditions = [where] if isinstance(where, str) else as_strings("where", where)
    refuse_labels(conditions, labelled=run.labelled)
    read = list(dict.fromkeys([*stored, *(SPANS if text else ())]))
    quoted = ", ".join(f'"{name}"' for name in read) or "document"
    frame = run.query(f"SELECT {quoted} FROM tokens WHERE {where_sql(conditions)}")
    frame = frame.astype({name: kind for name, kind in WHOLE.items() if name in frame})
    if not text:
        return frame[stored]
    shown = names if columns is not None and "text" in names else _beside_id(stored)
    return frame.assign(text=_texts(run, frame))[list(dict.fromkeys(shown))]


def _beside_id(names: Sequence[str]) -> list[str]:
    """Return the names with "text" before "token_id", as in the CSV, or last if there is no "token_id"."""
    return list(chain.from_iterable(("text", name) if name == "token_id" else (name,) for name in names)) + (
        [] if "token_id" in names else ["text"]
    )


def _texts(run: Readable, frame: pd.DataFrame) -> list[str]:
    r"""Return the text that each row covers; bytes that are not UTF-8 are escaped, such as `\xe2`."""
    vocabulary = load_vocabulary(run)
    documents, *rows = (frame[name].tolist() for name in SPANS)
    return [
        vocabulary.covered(data, start, stop, index).decode("utf-8", "backslashreplace")
        for data, start, stop, index in zip(DocumentTexts(run).along(documents), *rows, strict=True)
    ]
