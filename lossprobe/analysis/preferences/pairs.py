"""The pairs of a run: the log-probabilities and lengths of both answers, one row a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.rows.fields import field_value, is_label, record_columns, refuse_missing_field
from lossprobe.errors import NotComparableError, UsageError
from lossprobe.run.reader import Run
from lossprobe.units import visible

if TYPE_CHECKING:
    import pandas as pd

BOTH = "both"
SIDES = ("chosen", "rejected")


def check_pairs(run: Run) -> None:
    """Refuse a run that does not hold both sides of pairs.

    Raises:
        UsageError: it does not.
    """
    if run.settings.text.sides != BOTH:
        kind = run.settings.text.kind
        held = "the chosen sides alone" if kind == "pairs" else "no pairs"
        raise UsageError(
            "preferences.no_pairs", f"{visible(run.name, 80)} on {visible(run.text_name, 80)}: holds {held}",
            hint="lossprobe preferences CHECKPOINT PAIRS scores both sides of each pair",
        )  # fmt: skip


def refuse_label(run: Run, name: str) -> None:
    """Refuse a label of tokens in the place of a field of the records.

    Raises:
        UsageError: pairs have no such field, and their tokens have such a label.
    """
    if is_label(run, name) and not run.scalar(f"SELECT count({field_value(name)}) FROM documents"):
        raise UsageError(
            "preferences.by_label", f"`by` {name}: a {name} is that of a token, and each pair has tokens of several",
            hint="groups of pairs need a field of the records; lossprobe perplexity --by takes role, turn and part",
        )  # fmt: skip


def read_pairs(run: Run, by: str | None = None) -> pd.DataFrame:
    """Return one row a pair in text order.

    Columns: pair, source, line, record_id and record_source where records have them, field (where `by` names one),
    and for both sides: tokens (scored), logp_nats (0 without any), windows, key (equal for equal tokens).

    Args:
        run: holds both sides of pairs.
        by: a field of the records; None for none.

    Raises:
        UsageError: no record has the field.
    """
    import pyarrow as pa

    if by is not None:
        refuse_label(run, by)
        refuse_missing_field(run, by)
    field = "" if by is None else f", coalesce({field_value(by)}, '') AS field"
    names = f"SELECT document // 2 AS pair, source, line{record_columns(run)}{field} FROM documents"
    # In Arrow a text takes its own bytes and eight more; as an object of Python it takes ten times as much.
    pairs: pd.DataFrame = pa.Table.from_batches(run.batches(f"{names} WHERE document % 2 = 0")).to_pandas()
    for name, values in _sums(run, 2 * len(pairs)).items():
        for side, number in zip(SIDES, (0, 1), strict=True):
            pairs[f"{side}_{name}"] = values[number::2]
    return pairs


def _sums(run: Run, documents: int) -> dict[str, npt.NDArray[Any]]:
    """Return tokens, logp_nats, windows and key of each document, as arrays [documents]; 0 without any token."""
    found = run.query("""
        SELECT document, count(*) FILTER (WHERE unscored IS NULL) AS tokens,
               -coalesce(sum(loss_nats::DOUBLE), 0) AS logp_nats, max("window") - min("window") + 1 AS windows,
               bit_xor(hash(token, token_id, unscored IS NULL)) AS key
        FROM tokens GROUP BY document""")
    sums = {}
    for name in ("tokens", "logp_nats", "windows", "key"):
        values = found[name].to_numpy()
        sums[name] = np.zeros(documents, values.dtype)
        sums[name][found["document"]] = values
    return sums


def with_reference(pairs: pd.DataFrame, run: Run, reference: Run) -> pd.DataFrame:
    """Return pairs with the log-probabilities of a reference: chosen_reference_logp_nats, rejected_….

    Raises:
        NotComparableError: the reference was scored on other tokens.
    """
    check_pairs(reference)
    other = read_pairs(reference)
    keys = [f"{side}_key" for side in SIDES]
    if len(other) != len(pairs) or not np.array_equal(other[keys], pairs[keys]):
        names = f"{visible(run.name, 80)} and {visible(reference.name, 80)}"
        raise NotComparableError(
            "runs.different", f"{names}: scored on other tokens, so that their ratio means nothing",
            hint="score the same pairs with both, by the same template and tokenizer",
        )  # fmt: skip
    return pairs.assign(**{f"{side}_reference_logp_nats": other[f"{side}_logp_nats"] for side in SIDES})
