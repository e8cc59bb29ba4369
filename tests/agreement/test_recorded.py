"""What programs printed that the package index does not have, for the bundled model and text.

llama.cpp, commit 0c1e570, built from its source with GNU 12.2. The model was written as an f32 GGUF with
`gguf.GGUFWriter`: architecture gpt2, every tensor as it is (Conv1D weights transposed), tokenizer model gpt2 with
pre-tokenizer gpt-2, BOS id 0, `add_bos_token` true as in tokenizer.json. Token ids are those of the model's own
tokenizer. The text is the `text` of all records joined by a blank line:

    llama-perplexity -m plain-f32.gguf -f joined.txt -c 256 -b 256 -t 1 -fa off -ctk f32 -ctv f32 --ppl-output-type 1

It prints six decimals of the mean, and its GELU comes from a table in float16, which moves the mean by about 1e-6.

evaluate 0.4.6, its metric "perplexity" (which lies on a hub, not in the package), transformers 5.23 and float32 weights
(by default transformers 5 takes them as they are stored, here in float16), with a padding token given to the tokenizer,
which the metric needs and does not find:

    metric.compute(predictions=texts, model_id="jargon-plain", max_length=256, add_start_token=True)
"""

from __future__ import annotations

import pytest
from bundled import EXAMPLES

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.passes.protocols import score_protocol
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import open_text


@pytest.fixture(scope="module")
def plain():
    return open_checkpoint(EXAMPLES / "jargon-plain")


def scored(plain, folder, protocol, monkeypatch, **options):
    monkeypatch.chdir(folder)
    text = open_text(EXAMPLES / "jargon-valid.jsonl")
    return score_protocol(protocol, plain, text, ScoreOptions(**options))[1]


@pytest.mark.parametrize(
    ("context", "chunks", "nll", "perplexity", "error"),
    [(256, 90, 3.740883, 42.1352, 0.93510), (64, 360, 3.771271, 43.4353, 0.98245)],
)
def test_llama_cpp(plain, tmp_path, monkeypatch, context, chunks, nll, perplexity, error):
    result = scored(plain, tmp_path, "llama.cpp", monkeypatch, context=context)
    values = dict(zip(result.table["measure"], result.table["value"], strict=True))
    assert values["nll"] == pytest.approx(nll, rel=1e-6)
    assert result.value == pytest.approx(perplexity, rel=1e-5)
    assert values["perplexity_error"] == pytest.approx(error, rel=1e-5)
    assert result.tokens_scored == chunks * (context - 1 - context // 2)
    assert result.tokens_read == 23_083  # those of llama-tokenize, and the BOS


@pytest.mark.parametrize(("bos", "mean"), [("auto", 36.953759324316884), ("never", 39.702829286163926)])
def test_evaluate(plain, tmp_path, monkeypatch, bos, mean):
    result = scored(plain, tmp_path, "evaluate", monkeypatch, context=256, bos=bos)
    assert result.value == pytest.approx(mean, rel=1e-6)
