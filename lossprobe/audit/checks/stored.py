"""Lists the texts of a stored baseline, for `lossprobe baseline show`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lossprobe.audit.checks.metrics import TOKEN_LOSS
from lossprobe.errors import NotComparableError
from lossprobe.run.baseline import BASELINE_FILE, MAKE, is_baseline, open_baseline
from lossprobe.units import visible


def baseline_table(folder: Path) -> pd.DataFrame:
    """Return one row per text of a baseline.

    Returns:
        Columns data, model, text, documents, tokens (scored ones), nll_nats, dtype, lossprobe (its version), columns,
        bytes and bytes_per_token.

    Raises:
        NotComparableError: the folder holds no baseline, or a damaged one.
    """
    folders = sorted(file for file in folder.glob("*") if is_baseline(file)) if folder.is_dir() else []
    if not folders:
        shown = visible(str(folder), 200)
        raise NotComparableError("baseline.missing", f"{shown}: no baseline here (no */{BASELINE_FILE})", hint=MAKE)
    rows = []
    for place in folders:
        stored = open_baseline(place)
        held = stored.held
        size = held.size if held else sum((place / name).stat().st_size for name in stored.manifest["files"])
        nats = float(stored.scalar(f"SELECT avg({TOKEN_LOSS}) FROM tokens WHERE unscored IS NULL"))
        counts = stored.counts
        rows.append(
            {
                "data": visible(place.name, 80),
                "model": visible(stored.name, 80),
                "text": visible(stored.text_name, 80),
                "documents": counts["documents"],
                "tokens": counts["scored_tokens"],
                "nll_nats": nats,
                "dtype": stored.settings.checkpoint.compute_dtype,
                "lossprobe": stored.manifest["lossprobe"],
                "columns": ", ".join(stored.manifest["columns"]),
                "bytes": size,
                "bytes_per_token": size / counts["tokens"],
            }
        )
    return pd.DataFrame(rows)
