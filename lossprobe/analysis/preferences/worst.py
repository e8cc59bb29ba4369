"""The pairs that a model ranks most wrongly, with the text of both answers."""

from __future__ import annotations

import pandas as pd

from lossprobe.run.reader import Run
from lossprobe.run.texts import DocumentTexts
from lossprobe.text.counts import next_character, this_character
from lossprobe.units import visible_bytes

PROMPT_BYTES = 60
ANSWER_BYTES = 120


def worst_pairs(run: Run, table: pd.DataFrame, by: str, top: int) -> pd.DataFrame:
    """Return the pairs with the most negative margins, worst first, with the start of both answers.

    Args:
        run: the run.
        table: one row a pair; has the columns `pair` and `by`.
        by: column of the margin by which they are ranked.
        top: most rows.
    """
    wrong = table[table[by] < 0].nsmallest(top, by)
    known = [name for name in ("pair", "line", "record_id", "chosen_tokens", "rejected_tokens") if name in table]
    worst = wrong[[*known, by]].reset_index(drop=True)
    texts = _texts(run, [2 * pair + side for pair in worst["pair"].tolist() for side in (0, 1)])
    if any(texts.values()):
        chosen, rejected = ([texts[2 * pair + side] for pair in worst["pair"].tolist()] for side in (0, 1))
        worst["prompt_end"] = [before for before, _ in chosen]
        worst["chosen_begins"] = [after for _, after in chosen]
        worst["rejected_begins"] = [after for _, after in rejected]
    return worst


def _texts(run: Run, documents: list[int]) -> dict[int, tuple[str, str]]:
    """Return what stands before the first scored token of documents and what follows; "" where no text is stored."""
    found = run.query(
        "SELECT document, min(byte_start) AS first FROM tokens "
        "WHERE unscored IS NULL AND document IN (SELECT unnest(?::INTEGER[])) GROUP BY document ORDER BY document",
        (documents,),
    )
    texts = {}
    along = DocumentTexts(run).along(found["document"].tolist())
    for document, first, data in zip(found["document"].tolist(), found["first"].tolist(), along, strict=True):
        data = data or b""
        start = this_character(data, first) if data else 0
        before = data[next_character(data, max(0, start - PROMPT_BYTES)) : start] if data else b""
        after = data[start : this_character(data, min(len(data), start + ANSWER_BYTES))] if data else b""
        texts[document] = (visible_bytes(before), visible_bytes(after))
    return texts if any(after for _, after in texts.values()) else {}
