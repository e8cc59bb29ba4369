"""Writes complete runs drawn from known distributions, so that results can be compared with the truth.

Every column is computed here by its definition, in float64 with numpy. This second implementation uses nothing of
`lossprobe.scoring.statistics`, so tests can check one against the other.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from fake_runs import document_totals, finish_run
from planned import rolling_windows

from lossprobe import __version__
from lossprobe.checkpoint.interface import CheckpointFacts
from lossprobe.passes.identity import PASS_VERSION, UNSTORED
from lossprobe.plan.rows import WindowPolicy
from lossprobe.run.files import write_table
from lossprobe.run.identity import divide_facts
from lossprobe.run.reader import Run
from lossprobe.run.schema import HISTOGRAM_COLUMNS, LABELS, MEASURED, PLANNED, ladder_columns, token_columns
from lossprobe.text.documents import Document
from lossprobe.text.fingerprint import Fingerprint

TEMPERATURES = tuple(2.0 ** (step / 4) for step in range(-8, 9))  # 1/4 to 4
LOWEST, PER_DECADE = -12, 10
BINS = 1 - LOWEST * PER_DECADE
CHOICES: dict[str, Any] = {
    "context": 1024, "stride": None, "name": "model", "text_name": "text", "fields": None, "sample_every": 1,
    "vocabulary": None, "special": (), "rows_per_part": 10**9, "settings_changes": {}, "labels": None, "sources": None,
}  # fmt: skip
LABEL_COLUMNS = tuple(column.name for column in LABELS)
BLOCK_ENTRIES = 1 << 17  # logits worked on at once: 1 MiB, which fits into the CPU's cache


@dataclass(frozen=True)
class Drawn:
    """A stored run with the logits and targets that it was made of; one entry per scored row, in the run's order.

    Attributes:
        run: the run, opened.
        logits: float64 [N, V], logits of the model.
        targets: int64 [N], ids of the tokens.
        documents: int64 [N], document of each row.
    """

    run: Run
    logits: np.ndarray
    targets: np.ndarray
    documents: np.ndarray


def draw_logits(rng, rows: int, vocab: int, scale: float = 2.0, tail: float = 0.5) -> np.ndarray:
    """Return random logits, float64 [rows, vocab], flat in some rows and peaked in others as in a language model.

    Args:
        rng: a numpy Generator.
        rows, vocab: shape of the logits.
        scale: mean of the exponentially distributed scale of each row; confidences reach from 1 / vocab to almost 1.
        tail: exponent with which probability falls with the id in a row of scale 1, as (1 + id)^−tail.
    """
    row_scale = rng.exponential(scale, (rows, 1))
    return row_scale * (rng.standard_normal((rows, vocab)) - tail * np.log1p(np.arange(vocab)))


def draw_targets(rng, logits: np.ndarray) -> np.ndarray:
    """Return one sample from softmax(logits) for each row, int64 [N]."""
    cumulated = np.exp(logits - logits.max(axis=1, keepdims=True)).cumsum(axis=1)
    return (cumulated <= rng.random((len(logits), 1)) * cumulated[:, -1:]).sum(axis=1)


def smoothed_logits(logits: np.ndarray, epsilon: float) -> np.ndarray:
    """Return log q for q = (1 − ε) p + ε / V, the distribution that minimises a label-smoothed loss."""
    with np.errstate(divide="ignore"):  # ε = 0 keeps a masked entry masked
        return np.log((1.0 - epsilon) * np.exp(log_probabilities(logits)) + epsilon / logits.shape[1])


def as_pairs(run: Run) -> Run:
    """Return a run that says of its documents that they are the sides of pairs: chosen, rejected, chosen, …"""
    manifest = copy.deepcopy(run.manifest)
    manifest["settings"]["text"] |= {"kind": "pairs", "sides": "both"}
    return replace(run, manifest=manifest)


def tempered_logits(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return logits / T, of a model that is over-confident for T < 1 and under-confident for T > 1.

    If targets are drawn from softmax(logits), the best temperature of this model is 1 / T.
    """
    return logits / temperature


def document_numbers(rng, rows: int, documents: int) -> np.ndarray:
    """Return sorted int64 [rows] document numbers; sizes are log-normal (σ = 1), at least one row each."""
    weights = rng.lognormal(size=documents)
    return np.repeat(np.arange(documents), 1 + rng.multinomial(rows - documents, weights / weights.sum()))


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return log softmax(logits), summed without the largest entry, so that confident rows lose no digits."""
    rows, top_id = np.arange(len(logits)), logits.argmax(axis=1)
    shifted = logits - logits[rows, top_id][:, None]
    others = np.exp(shifted)
    others[rows, top_id] = 0.0
    return shifted - np.log1p(others.sum(axis=1))[:, None]


def measure_rows(logits: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Return the measured columns by name, float64 or int64 [N]; entries of −inf have p = 0 and no uniform loss."""
    rows, top_id = np.arange(len(logits)), logits.argmax(axis=1)
    log_p = log_probabilities(logits)
    present = np.isfinite(log_p)
    p, log_p = np.exp(log_p), np.where(present, log_p, 0.0)
    entropy = -(p * log_p).sum(axis=1)
    top_log_p = log_p[rows, top_id]
    target = logits[rows, targets]
    others = logits.copy()
    others[rows, targets] = -np.inf
    return {
        "loss_nats": logits[rows, top_id] - target - top_log_p,
        "rank": (logits > target[:, None]).sum(axis=1),
        "ties": (logits == target[:, None]).sum(axis=1),
        "entropy_nats": entropy,
        "varentropy": (p * (log_p + entropy[:, None]) ** 2).sum(axis=1),
        "top_id": top_id,
        "top_prob": p[rows, top_id],
        "margin_nats": target - others.max(axis=1),
        "log_z": logits[rows, top_id] - top_log_p,
        "uniform_loss_nats": -log_p.sum(axis=1) / present.sum(axis=1),
        "sum_p2": (p * p).sum(axis=1),
    }


def probability_bins(logits: np.ndarray, targets: np.ndarray, documents: np.ndarray, count: int) -> np.ndarray:
    """Return entries, sum of p and targets of each document in each bin of log10 p, float64 [3, count, BINS]."""
    log_p = log_probabilities(logits)
    bins = np.floor((log_p / math.log(10.0) - LOWEST) * PER_DECADE) + 1.0
    index = np.clip(bins, 0, BINS - 1).astype(np.int64) + documents[:, None] * BINS
    hits = index[np.arange(len(targets)), targets]
    spread = functools.partial(np.bincount, minlength=count * BINS)
    sums = spread(index.ravel()), spread(index.ravel(), np.exp(log_p).ravel()), spread(hits)
    return np.array(sums).reshape(3, count, BINS)


def temperature_sums(logits: np.ndarray) -> np.ndarray:
    """Return float64 [N, 17], log-sum-exp(z / T) for each of `TEMPERATURES`."""
    top = logits.max(axis=1)
    shifted = logits - top[:, None]
    return np.stack([top / t + np.log(np.exp(shifted / t).sum(axis=1)) for t in TEMPERATURES], axis=1)


def write_drawn(folder, logits: np.ndarray, targets: np.ndarray, documents: np.ndarray, **choices: Any) -> Drawn:
    """Write a complete run: in each document an unscored first token, then its rows in order.

    Args:
        folder: folder of the run, made here.
        logits: [N, V], logits of the model; −inf masks an entry.
        targets: [N], ids of the tokens.
        documents: [N], document of each row, ascending from 0. A number without rows is a document of one token.
        choices: other settings with their defaults.
            context (1024), stride (None): of the windows.
            name ("model"), text_name ("text"): labels of the run.
            fields (None): a dict for each document.
            sample_every (1): the ladder is kept of every n-th row, counting unscored rows too.
            vocabulary (b" w0", …): the bytes of each id, which must be whole characters.
            special (none): ids of special tokens.
            rows_per_part (one part): a document cut by it has bins in both parts, as in a real run.
            settings_changes (none): {group: {key: value}}, put over the settings of the manifest.
            labels (None): (turn, role, part) of every token, first ones of documents too; makes them conversations.
            sources ("drawn.jsonl" for all): the file of each document.
    """
    folder, logits = Path(folder), np.asarray(logits, np.float64)
    targets, documents = np.asarray(targets, np.int64), np.asarray(documents, np.int64)
    assert logits.shape[:1] == targets.shape == documents.shape
    assert (np.diff(documents) >= 0).all()
    assert choices.keys() <= CHOICES.keys(), f"unknown: {choices.keys() - CHOICES.keys()}"
    choices = CHOICES | choices
    size = logits.shape[1]
    vocabulary = choices["vocabulary"] or [b" w%d" % index for index in range(size)]
    assert len(vocabulary) == size
    first = min(set(range(size)) - set(choices["special"]))
    rows = _plan(targets, documents, first, np.array([len(piece) for piece in vocabulary]), choices)
    for name, values in zip(LABEL_COLUMNS, zip(*(choices["labels"] or ()), strict=True), strict=False):
        rows[name] = np.array(values, object)
    part_rows = []
    for start in range(0, len(rows["token"]), choices["rows_per_part"]):
        part = {name: values[start : start + choices["rows_per_part"]] for name, values in rows.items()}
        seen = slice(start - rows["unscored"][:start].sum(), None)
        _write_part(folder, len(part_rows), part, logits[seen], start, choices["sample_every"])
        part_rows.append(len(part["token"]))
    records = _records(rows, vocabulary, first, choices)
    counts = document_totals(records) | {
        "unscored_tokens": {"first_token": len(records)},
        "unscored_bytes": {"first_token": len(records) * len(vocabulary[first])},
        "unknown_tokens": 0,
        "unknown_text": [],
        "spans_tile": True,
    }
    manifest = {
        "lossprobe": __version__,
        "settings": _settings(logits, records, vocabulary, choices),
        "labels": {"checkpoint": choices["name"], "text": choices["text_name"]},
        "counts": counts,
        "part_rows": part_rows,
        "sample_every": choices["sample_every"],
    }
    return Drawn(finish_run(folder, records, vocabulary, choices["special"], manifest), logits, targets, documents)


def _plan(targets, documents, first: int, widths: np.ndarray, choices: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the planned columns of all rows; `unscored` is bool [N] here."""
    sizes = 1 + np.bincount(documents, minlength=len(choices["fields"] or ()))
    leads = sizes.cumsum() - sizes  # the row of each document's first token
    document = np.repeat(np.arange(len(sizes)), sizes)
    token = np.arange(len(document)) - leads[document]
    token_id = np.full(len(document), first)
    token_id[token > 0] = targets
    stop = widths[token_id].cumsum()
    stop -= (stop - widths[token_id])[leads][document]
    window, window_start = np.zeros_like(token), np.zeros_like(token)
    number = 0
    for lead, size in zip(leads.tolist(), sizes.tolist(), strict=True):
        for index, plan in enumerate(rolling_windows(size, choices["context"], choices["stride"])):
            own = slice(lead + (plan.first_scored if index else 0), lead + plan.stop)
            window[own], window_start[own] = number, plan.start
            number += 1
    return {
        "document": document, "token": token, "token_id": token_id, "byte_start": stop - widths[token_id],
        "byte_stop": stop, "window": window, "context": token - window_start, "unscored": token == 0,
    }  # fmt: skip


def _write_part(folder: Path, index: int, rows, logits: np.ndarray, first_row: int, sample_every: int) -> None:
    """Write the three files of one part; `logits` starts at the part's first scored row."""
    scored = np.flatnonzero(~rows["unscored"])
    sampled = (first_row + scored) % sample_every == 0
    targets, documents = rows["token_id"][scored], rows["document"][scored]
    count = int(rows["document"][-1]) + 1
    columns, ladder, bins = [], [], np.zeros((3, count, BINS))
    step = max(1, BLOCK_ENTRIES // logits.shape[1])
    for start in range(0, max(1, len(scored)), step):
        block = slice(start, min(start + step, len(scored)))
        columns.append(measure_rows(logits[block], targets[block]))
        assert np.isfinite(columns[-1]["loss_nats"]).all(), "a target is masked, or a logit no number"
        ladder.append(temperature_sums(logits[block][sampled[block]]))
        bins += probability_bins(logits[block], targets[block], documents[block], count)
    name = f"part-{index:05d}.parquet"
    for table in ("tokens", "histogram", "ladder"):
        (folder / table).mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {column.name: rows[column.name] for column in PLANNED}
    values["unscored"] = np.where(rows["unscored"], "first_token", None)
    for column in MEASURED:
        filled = np.zeros(len(rows["token"]), column.type.to_pandas_dtype())
        filled[scored] = np.concatenate([block[column.name] for block in columns])
        values[column.name] = np.ma.masked_array(filled, rows["unscored"])
    labels = {label: rows[label].tolist() for label in LABEL_COLUMNS if label in rows}
    write_table(folder / "tokens" / name, token_columns(labelled=bool(labels)), values | labels)
    held = np.nonzero(bins[0])
    _write_columns(folder / "histogram" / name, HISTOGRAM_COLUMNS, [*held, *(kept[held] for kept in bins)])
    keys = [rows[key][scored[sampled]] for key in ("document", "token")]
    _write_columns(folder / "ladder" / name, ladder_columns(TEMPERATURES), [*keys, *np.concatenate(ladder).T])


def _write_columns(path: Path, columns, values: list[np.ndarray]) -> None:
    """Write a table whose values are given in the order of its columns."""
    write_table(path, columns, {column.name: value for column, value in zip(columns, values, strict=True)})


def _records(rows, vocabulary: list[bytes], first: int, choices: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of documents.parquet: records of a JSONL, whose text is that of their tokens."""
    pieces = [vocabulary[index] for index in rows["token_id"].tolist()]
    leads = np.flatnonzero(rows["unscored"]).tolist()
    unscored = _sizes(1, vocabulary[first].decode())
    fields, records = choices["fields"], []
    sources = choices["sources"] or ["drawn.jsonl"] * len(leads)
    for number, (start, stop) in enumerate(zip(leads, [*leads[1:], len(pieces)], strict=True)):
        text = b"".join(pieces[start:stop]).decode()
        whole = _sizes(stop - start, text)
        records.append(
            {
                "document": number, "source": sources[number], "line": number + 1, "byte_offset": -1, **whole,
                **{f"scored_{unit}": whole[unit] - unscored[unit] for unit in whole},
                "normalized_bytes": 0, "tiles": True,
                "fields": json.dumps(fields[number] if fields else {}, sort_keys=True), "text": text,
            }
        )  # fmt: skip
    return records


def _sizes(tokens: int, text: str) -> dict[str, int]:
    return {"tokens": tokens, "bytes": len(text.encode()), "characters": len(text), "words": len(text.split())}


def _settings(logits, records, vocabulary: list[bytes], choices: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the run, with the keys of `passes.score.describe`."""
    weights = hashlib.sha256(np.ascontiguousarray(logits)).hexdigest()
    facts = asdict(CheckpointFacts("", "drawn", weights, len(vocabulary), choices["context"]))
    text = Fingerprint()
    for record in records:
        text.add(Document(record["text"], record["source"], record["line"], record["byte_offset"], record["fields"]))
    words = json.dumps([[piece.hex() for piece in vocabulary], sorted(choices["special"])])
    left_out = UNSTORED | {"batching", "router", "quantization"}
    settings = {
        "checkpoint": divide_facts({key: facts[key] for key in facts if key not in left_out})[0],
        "tokenizer": {"kind": "drawn", "sha256": hashlib.sha256(words.encode()).hexdigest()},
        "text": {"sha256": text.hexdigest(), "kept": True} | ({} if choices["labels"] is None else {"kind": "chat"}),
        "windows": asdict(WindowPolicy(choices["context"], choices["stride"] or choices["context"])),
        "versions": _versions(),
    }
    assert choices["settings_changes"].keys() <= settings.keys()
    return {group: values | choices["settings_changes"].get(group, {}) for group, values in settings.items()}


@functools.cache
def _versions() -> dict[str, str]:
    names = ("numba", "torch", "transformers", "tokenizers")
    return {"lossprobe": __version__, "pass": PASS_VERSION} | {name: metadata.version(name) for name in names}
