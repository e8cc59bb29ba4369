"""Writes every value of training logs as CSV, piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from lossprobe.logs.log import Log, Series
from lossprobe.report.formats.csv import batches_to_csv, plain_name

PIECE = 16_384  # rows that are made at once


def logs_to_csv(names: Sequence[str], logs: Sequence[Log]) -> Iterable[bytes]:
    """Return the values of logs, one a row: log, split, name, key, step, epoch, tokens_seen, value.

    Args:
        names: what the logs are called.
        logs: the logs.
    """
    return batches_to_csv(_batches(names, logs))


def _batches(names: Sequence[str], logs: Sequence[Log]) -> Iterator[pa.RecordBatch]:
    for name, log in zip(names, logs, strict=True):
        for each in log.series:
            for start in range(0, max(len(each.steps), 1), PIECE):
                yield _batch(name, each, slice(start, start + PIECE))


def _batch(log: str, series: Series, part: slice) -> pa.RecordBatch:
    steps = series.steps[part]
    texts = {"log": log, "split": series.split, "name": series.name, "key": series.key}
    columns = {name: pa.repeat(pa.scalar(plain_name(text), pa.string()), len(steps)) for name, text in texts.items()}
    columns["step"] = pa.array(steps)
    for name, values in (("epoch", series.epochs), ("tokens_seen", series.tokens)):
        known = pa.nulls(len(steps), pa.float64()) if values is None else pa.array(values[part], from_pandas=True)
        columns[name] = known
    columns["value"] = pa.array(series.values[part])
    return pa.RecordBatch.from_pydict(columns)
