"""Writes small complete runs without a model; the test chooses every number in them."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from planned import rolling_windows

from lossprobe.plan.rows import WindowPolicy
from lossprobe.run.files import sha256_of, write_json, write_table
from lossprobe.run.reader import Run, open_run
from lossprobe.run.schema import (
    DOCUMENT_COLUMNS,
    HISTOGRAM_COLUMNS,
    MEASURED,
    SCHEMA_VERSION,
    VOCABULARY_COLUMNS,
    ladder_columns,
    token_columns,
)

LN2 = math.log(2.0)
BOS = b"<bos>"


@dataclass(frozen=True)
class Doc:
    """One document of a fake run.

    Attributes:
        pieces: the bytes of each token; a first piece `BOS` stands for no byte.
        bits: the loss of each token in bits, or the reason why it is not scored.
        fields: other fields of its JSONL record.
        source, line: file and line of the document.
        labels: (turn, role, part) of each token; None for plain text.
    """

    pieces: list[bytes]
    bits: list[float | str]
    fields: dict[str, Any] | None = None
    source: str = "fake.txt"
    line: int = 1
    labels: list[tuple[int | None, str | None, str]] | None = None

    @property
    def data(self) -> bytes:
        return b"".join(piece for piece in self.pieces if piece != BOS)


def words(*bits: float | str, fields=None, pieces: list[bytes] | None = None) -> Doc:
    """Return a document of the tokens " a", " b", " c", … with losses in bits, or reasons why they are not scored."""
    letters = [b" " + bytes([97 + index % 26]) for index in range(len(bits))]
    return Doc(pieces or letters, list(bits), fields)


def write_run(folder, docs: list[Doc], **choices: Any) -> Run:
    """Write a complete run and return it.

    Args:
        folder: folder of the run.
        docs: its documents.
        choices: context, stride (of the windows); vocab_size; keep_text; tiles; name; text_name; rows_per_part; top_id;
            copies (whether documents may be identical: else an unscored first token makes the difference).
    """
    given = {"context": 1024, "stride": None, "vocab_size": None, "keep_text": True, "tiles": True, "name": "model"}
    choices = given | {"text_name": "text", "rows_per_part": 10**9, "top_id": 0, "copies": False} | choices
    docs = docs if choices["copies"] else told_apart(docs)
    pieces = sorted({piece for doc in docs for piece in doc.pieces} - {BOS})
    vocabulary = [BOS, *pieces]
    ids = {piece: index for index, piece in enumerate(vocabulary)}
    rows = [row for number, doc in enumerate(docs) for row in _rows(number, doc, ids, choices)]
    for name in ("tokens", "histogram", "ladder"):
        (folder / name).mkdir(parents=True)
    choices["labelled"] = any(doc.labels for doc in docs)
    columns = token_columns(labelled=choices["labelled"])
    for part, first in enumerate(range(0, len(rows), choices["rows_per_part"])):
        chosen = rows[first : first + choices["rows_per_part"]]
        _write_tokens(folder / "tokens" / f"part-{part:05d}.parquet", chosen, columns)
    write_table(folder / "histogram/part-00000.parquet", HISTOGRAM_COLUMNS, {c.name: [] for c in HISTOGRAM_COLUMNS})
    ladder = ladder_columns((1.0,))
    write_table(folder / "ladder/part-00000.parquet", ladder, {column.name: [] for column in ladder})
    records = [_document(number, doc, choices) for number, doc in enumerate(docs)]
    size = choices["vocab_size"] or len(vocabulary)
    manifest = _manifest(rows, records, size, choices)
    return finish_run(folder, records, (vocabulary + [b""] * size)[:size], {0}, manifest)


def told_apart(docs: list[Doc]) -> list[Doc]:
    """Return documents of which none has the text of an earlier one, where their first token is no scored one."""
    seen, found = set(), []
    for number, doc in enumerate(docs):
        if doc.data in seen and doc.bits[0] == "first_token" and doc.pieces[0] != BOS and _is_text(doc.pieces[0]):
            size = len(doc.pieces[0])
            name = bytes(33 + number // 90**place % 90 for place in range(size))
            doc = replace(doc, pieces=[name, *doc.pieces[1:]])
        seen.add(doc.data)
        found.append(doc)
    return found


def _is_text(piece: bytes) -> bool:
    """Return whether a piece ends with a character, so that another of its length can stand in its place."""
    return piece.decode("utf-8", "ignore").encode() == piece


def finish_run(
    folder, records: list[dict[str, Any]], vocabulary: list[bytes], special, manifest: dict[str, Any]
) -> Run:
    """Write the other files of a run whose parts are written, run.json with all hashes last, and open the run.

    Args:
        folder: folder of the run.
        records: the rows of documents.parquet.
        vocabulary: the bytes of each id.
        special: ids of special tokens.
        manifest: settings, labels and counts.
    """
    write_table(folder / "documents.parquet", DOCUMENT_COLUMNS, _columns(records, DOCUMENT_COLUMNS))
    entries = [{"token_id": i, "bytes": piece, "special": i in special} for i, piece in enumerate(vocabulary)]
    write_table(folder / "vocabulary.parquet", VOCABULARY_COLUMNS, _columns(entries, VOCABULARY_COLUMNS))
    files = {str(file.relative_to(folder)): sha256_of(file) for file in sorted(folder.rglob("*.parquet"))}
    write_json(folder / "run.json", {"kind": "lossprobe run", "schema": SCHEMA_VERSION, **manifest, "files": files})
    return open_run(folder)


def document_totals(records: list[dict[str, Any]]) -> dict[str, int]:
    """Return the counts of a run that are sums over its documents."""
    names = [column.name for column in DOCUMENT_COLUMNS[4:13]]
    return {"documents": len(records), **{name: sum(record[name] for record in records) for name in names}}


def _rows(number: int, doc: Doc, ids: dict[bytes, int], choices: dict[str, Any]) -> list[dict[str, Any]]:
    window, context = [0] * len(doc.pieces), list(range(len(doc.pieces)))
    for index, plan in enumerate(rolling_windows(len(doc.pieces), choices["context"], choices["stride"])):
        for token in range(plan.first_scored if index else 0, plan.stop):
            window[token], context[token] = index, token - plan.start
    rows, stop = [], 0
    for token, (piece, value) in enumerate(zip(doc.pieces, doc.bits, strict=True)):
        start, stop = stop, stop + (0 if piece == BOS else len(piece))
        scored = not isinstance(value, str)
        loss = value * LN2 if scored else None
        rows.append(
            {
                "document": number, "token": token, "token_id": ids[piece], "byte_start": start, "byte_stop": stop,
                "window": window[token], "context": context[token], "unscored": None if scored else value,
                **{column.name: 1 if scored else None for column in MEASURED},
                "loss_nats": loss, "rank": round(value) if scored else None,
                "top_id": choices["top_id"] if scored else None, "top_prob": 0.5 if scored else None,
                **dict(zip(("turn", "role", "part"), doc.labels[token] if doc.labels else (), strict=False)),
            }
        )  # fmt: skip
    return rows


def _columns(rows: list[dict[str, Any]], columns) -> dict[str, list[Any]]:
    return {column.name: [row[column.name] for row in rows] for column in columns}


def _write_tokens(path, rows: list[dict[str, Any]], columns) -> None:
    values: dict[str, Any] = _columns(rows, columns)
    for column in MEASURED:
        absent = [value is None for value in values[column.name]]
        filled = np.array([0 if value is None else value for value in values[column.name]])
        values[column.name] = np.ma.masked_array(filled.astype(column.type.to_pandas_dtype()), absent)
    write_table(path, columns, values)


def _document(number: int, doc: Doc, choices: dict[str, Any]) -> dict[str, Any]:
    """Return a row of documents.parquet; scored characters and words are counted by their first bytes."""
    text = doc.data.decode()
    owner = [token for token, piece in enumerate(doc.pieces) for _ in (b"" if piece == BOS else piece)]
    scored = [not isinstance(value, str) for value in doc.bits]
    characters, word_starts, at = [], [], 0
    for index, character in enumerate(text):
        characters.append(at)
        if not character.isspace() and (index == 0 or text[index - 1].isspace()):
            word_starts.append(at)
        at += len(character.encode())
    return {
        "document": number, "source": doc.source, "line": doc.line, "byte_offset": 0, "tokens": len(doc.pieces),
        "scored_tokens": sum(scored), "bytes": len(doc.data), "characters": len(text), "words": len(text.split()),
        "scored_bytes": sum(scored[token] for token in owner),
        "scored_characters": sum(scored[owner[at]] for at in characters),
        "scored_words": sum(scored[owner[at]] for at in word_starts),
        "normalized_bytes": 0, "tiles": choices["tiles"],
        "fields": None if doc.fields is None else json.dumps(doc.fields, sort_keys=True),
        "text": text if choices["keep_text"] else None,
    }  # fmt: skip


def _manifest(rows, records, vocab_size: int, choices: dict[str, Any]) -> dict[str, Any]:
    unscored = [row for row in rows if row["unscored"] is not None]
    unscored_bytes: Counter[str] = Counter()
    for row in unscored:
        unscored_bytes[row["unscored"]] += row["byte_stop"] - row["byte_start"]
    return {
        "settings": {
            "checkpoint": {"vocab_size": vocab_size},
            "text": {"kept": choices["keep_text"]} | ({"kind": "chat"} if choices["labelled"] else {}),
            "windows": asdict(WindowPolicy(choices["context"], choices["stride"] or choices["context"])),
        },
        "labels": {"checkpoint": choices["name"], "text": choices["text_name"]},
        "counts": {
            **document_totals(records),
            "unscored_tokens": dict(Counter(row["unscored"] for row in unscored)),
            "unscored_bytes": dict(unscored_bytes),
            "spans_tile": choices["tiles"],
        },
    }
