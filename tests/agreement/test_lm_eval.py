"""lm-evaluation-harness itself (0.4.13), in this process, against `--protocol lm-eval`; skipped without it."""

from __future__ import annotations

import math
import re

import pytest
import torch
from checkpoint import builders

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.passes.protocols import score_protocol
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import StringSource

pytest.importorskip("lm_eval", reason="needs lm-eval 0.4.13, in an environment of its own")

pytestmark = pytest.mark.filterwarnings("default")  # of its own many dependencies

CONTEXT = 48
TEXTS = [
    builders.CORPUS * 3,
    " The rat\tsat there;\n\na café, 3 cats.\n",
    "cat",
    builders.CORPUS[::-1] + builders.CORPUS,
    "a " * CONTEXT,
    "cafe\u0301 12345  it's<|im_end|>\n\n\nthe cat",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Checkpoints by name: a BOS that the tokenizer adds, one that it does not add, EOS alone, classes that rebuild."""
    root = tmp_path_factory.mktemp("lm-eval")
    paths = {
        "llama": builders.save(builders.model("llama"), root / "llama", builders.sentencepiece_bpe()),
        "gpt2": builders.save(builders.model("gpt2"), root / "gpt2"),
        "eos": builders.save(builders.model("gpt2", seed=3), root / "eos"),
        "chatml": builders.save(builders.model("qwen3"), root / "chatml"),
        "rebuilt": builders.save(builders.model("gpt_neox"), root / "rebuilt"),
    }
    builders.write_settings(paths["llama"], bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    builders.write_settings(paths["gpt2"], bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    builders.write_settings(paths["eos"], eos_token="<|endoftext|>")
    added = {"264": {"content": "<|im_end|>", "special": True}}
    builders.write_settings(paths["chatml"], bos_token=None, eos_token="<|im_end|>", added_tokens_decoder=added)
    builders.reconfigure(paths["chatml"], bos_token_id=0)  # which is no prefix of the harness
    named = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    builders.write_settings(paths["rebuilt"], tokenizer_class="GPTNeoXTokenizer", **named)
    return paths


def said_by_the_harness(path, texts: list[str], context: int, bos: str) -> tuple[list[int], list[float]]:
    """Return the tokens that the harness makes of each text, and its loglikelihood."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    harness = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval(),
        tokenizer=AutoTokenizer.from_pretrained(path),
        softmax_dtype="float32",
        batch_size=1,
        max_length=context,
        add_bos_token=None if bos == "auto" else False,
        device="cpu",
    )
    requests = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(texts)]
    sizes = [len(harness.tok_encode(text)) for text in texts]
    return sizes, harness.loglikelihood_rolling(requests, disable_tqdm=True)


@pytest.mark.parametrize("context", [CONTEXT, 17])
@pytest.mark.parametrize(
    ("name", "bos"),
    [("llama", "auto"), ("llama", "never"), ("gpt2", "auto"), ("eos", "auto"), ("chatml", "auto"), ("rebuilt", "auto")],
)
def test_rolling_loglikelihood(name, bos, context, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [*TEXTS, "<s>the cat sat"] if name == "llama" else TEXTS  # a BOS that is written is not doubled
    sizes, harness = said_by_the_harness(made[name], texts, context, bos)
    assert max(sizes) > 2 * context
    checkpoint = load_huggingface(made[name], LoadOptions())
    options = ScoreOptions(context=context, bos=bos)
    run, result = score_protocol("lm-eval", checkpoint, StringSource(texts), options)
    frame = run.query("""
        SELECT -sum(loss_nats::DOUBLE) AS loglikelihood, count(loss_nats) AS tokens
        FROM tokens GROUP BY document ORDER BY document""")
    assert frame["tokens"].tolist() == sizes
    assert frame["loglikelihood"].tolist() == pytest.approx(harness, rel=1e-5)
    total = math.fsum(harness)
    words = sum(len(re.split(r"\s+", text)) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    expected = {
        "word_perplexity": math.exp(-total / words),
        "byte_perplexity": math.exp(-total / size),
        "bits_per_byte": -total / size / math.log(2),
        "loglikelihood": total,
    }
    found = dict(zip(result.table["measure"], result.table["value"], strict=True))
    assert found == pytest.approx(expected, rel=1e-5)
    assert result.value == found["word_perplexity"]
