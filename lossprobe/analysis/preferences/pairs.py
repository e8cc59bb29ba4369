"""The pairs of a run: the log-probabilities and lengths of both answers, one row a pair."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lossprobe.analysis.rows.fields import field_value, is_label, record_columns, refuse_missing_field
from lossprobe.errors import NotComparableError, UsageError
from lossprobe.run.reader import Run
from lossprobe.units import visible

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
            hint="name the checkpoint and the pairs: both sides of each pair have to be scored",
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
    if by is not None:
        refuse_label(run, by)
        refuse_missing_field(run, by)
    field = "" if by is None else f", coalesce({field_value(by)}, '') AS field"
    frame = run.query(f"""
        WITH scored AS (
            SELECT document, count(*) FILTER (WHERE unscored IS NULL) AS tokens,
                   -coalesce(sum(loss_nats::DOUBLE), 0) AS logp_nats, max("window") - min("window") + 1 AS windows,
                   bit_xor(hash(token, token_id, unscored IS NULL)) AS key
            FROM tokens GROUP BY document)
        SELECT document // 2 AS pair, source, line{record_columns(run)}{field}, document % 2 AS side,
               coalesce(scored.tokens, 0) AS tokens, coalesce(logp_nats, 0) AS logp_nats,
               coalesce(windows, 0) AS windows, coalesce(key, 0) AS key
        FROM documents LEFT JOIN scored USING (document) ORDER BY document""")
    measured = ["tokens", "logp_nats", "windows", "key"]
    one, other = (frame[frame["side"] == side].reset_index(drop=True) for side in (0, 1))
    pairs = one.drop(columns=["side", *measured])
    for side, part in zip(SIDES, (one, other), strict=True):
        for name in measured:
            pairs[f"{side}_{name}"] = part[name]
    return pairs


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
