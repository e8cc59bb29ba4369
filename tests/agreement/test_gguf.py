"""What llama-perplexity printed for the bundled model as GGUF files, and its tokens.

llama.cpp, commit 0c1e570, built from its source with GNU 12.2; its function `perplexity` of tools/perplexity with the
defaults of the command (-b 2048, flash attention by itself, keys and values in float16) and -c 256 -t 1. The files are
those that `gguf_files.gpt2_gguf` writes; the text is the `text` of all records joined by a blank line. xllamacpp holds
a later llama.cpp, which gives the same digits here; for heads of width 8 it rounds otherwise.
"""

import importlib.util

import pytest
from bundled import EXAMPLES
from gguf_files import gpt2_gguf

from lossprobe.analysis.rows.same_tokens import refuse_other_vocabulary
from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.passes.protocols import score_protocol
from lossprobe.passes.score import planned_run
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import open_text

pytestmark = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs lossprobe[gguf]")
PRINTED = {"F32": 42.1355, "F16": 42.1354, "Q8_0": 42.1280}
SLOW = [pytest.param(kind, marks=pytest.mark.thorough) for kind in ("F32", "F16")]


@pytest.mark.parametrize("kind", [*SLOW, "Q8_0"])
def test_llama_perplexity(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "plain.gguf"
    path.write_bytes(gpt2_gguf(EXAMPLES / "jargon-plain", kind))
    text = open_text(EXAMPLES / "jargon-valid.jsonl")
    table = score_protocol("llama.cpp", open_checkpoint(path), text, ScoreOptions(context=256))[1]
    assert table.value == pytest.approx(PRINTED[kind], abs=5e-5)  # every printed digit


def test_tokens_are_those_of_the_tokenizer_json(tmp_path):
    path = tmp_path / "plain.gguf"
    path.write_bytes(gpt2_gguf(EXAMPLES / "jargon-plain", "F16"))
    models, text = (
        (open_checkpoint(path), open_checkpoint(EXAMPLES / "jargon-plain")),
        open_text(EXAMPLES / "jargon-valid.jsonl"),
    )
    refuse_other_vocabulary(*(planned_run(model, text, ScoreOptions()) for model in models))
    theirs, ours = (model.tokenizer for model in models)
    for document in text.documents():
        found, expected = theirs.encode(document.text), ours.encode(document.text)
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.byte_stop.tolist() == expected.byte_stop.tolist()
