"""The paths of the bundled examples."""

from __future__ import annotations

from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CHECKPOINT = EXAMPLES / "jargon-plain"
