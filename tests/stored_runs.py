"""Makes a run of several parts, and damages it in several ways."""

from __future__ import annotations

import json

import pytest
from fakes import SmallModel, checkpoint

from lossprobe.passes import planning
from lossprobe.passes.score import score
from lossprobe.plan import rows as plan
from lossprobe.run.files import json_bytes, sealed, sha256_of
from lossprobe.text.documents import StringSource

TEXTS = ["It was a dark and stormy night; " * 5, "xyz", "café ☃ " * 12, "def f(x): return x + 1 " * 4]


def score_texts(output, model: int = 0, **choices):
    """Score a few texts in parts of 128 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 128))
        text = choices.pop("text", None) or StringSource(TEXTS)
        return score(checkpoint(SmallModel(model), sha256=f"model {model}"), text, output=output, **choices)


def reseal(run, change=lambda _manifest: None):
    """Change run.json and compute all hashes again, as somebody could who knows the format."""
    manifest = json.loads((run / "run.json").read_text())
    manifest.pop("sha256", None)
    manifest["files"] = {name: sha256_of(run / name) for name in manifest["files"] if (run / name).is_file()}
    change(manifest)
    (run / "run.json").write_bytes(json_bytes(sealed(manifest)))


def flip(file, place: float = 0.5):
    """Change one bit of a file."""
    data = bytearray(file.read_bytes())
    data[int(len(data) * place)] ^= 4
    file.write_bytes(data)


def tree(path):
    """Return the bytes of every file below a folder."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
