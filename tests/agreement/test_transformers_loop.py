"""The loop of transformers' documentation, written afresh with the library's own loss, against `--protocol`."""

from __future__ import annotations

import math

import pytest
import torch
from checkpoint import builders
from transformers import AutoModelForCausalLM

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.passes.protocols import score_protocol
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import StringSource

LENGTH = 40
TEXTS = [builders.CORPUS * 2, "The rat sat there; a café, 3 cats.\n"]


def said_by_the_loop(model, ids: list[int], stride: int) -> tuple[float, float]:
    """Return the perplexity with the weights of the loop, and with every label weighing the same."""
    total = weight = nats = labels = before = 0
    for begin in range(0, len(ids), stride):
        end = min(begin + LENGTH, len(ids))
        inputs = torch.tensor([ids[begin:end]])
        targets = inputs.clone()
        targets[:, : before - begin if begin else 0] = -100
        with torch.no_grad():
            loss = model(inputs, labels=targets).loss.item()
        shifted, new = int((targets[:, 1:] != -100).sum()), int((targets != -100).sum())
        total, weight = total + loss * (new - 1), weight + new - 1
        nats, labels, before = nats + loss * shifted, labels + shifted, end
        if end == len(ids):
            break
    return math.exp(total / weight), math.exp(nats / labels)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A GPT-2 whose tokenizer adds no BOS, and a Llama whose tokenizer adds one."""
    root = tmp_path_factory.mktemp("loop")
    made = {
        "gpt2": builders.save(builders.model("gpt2"), root / "gpt2"),
        "llama": builders.save(builders.model("llama"), root / "llama", builders.sentencepiece_bpe()),
    }
    builders.write_settings(made["llama"], bos_token="<s>", eos_token="</s>")
    return made


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_documented_loop(family, paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = load_huggingface(paths[family], LoadOptions())
    tokenizer = builders.sentencepiece_bpe() if family == "llama" else builders.byte_level_bpe()
    ids = tokenizer.encode("\n\n".join(TEXTS)).ids  # with the specials that it adds, as the loop does
    assert (ids[0] == 1) == (family == "llama")
    model = AutoModelForCausalLM.from_pretrained(paths[family], dtype=torch.float32).eval()
    for stride in (LENGTH, LENGTH // 2, 13):
        expected = said_by_the_loop(model, ids, stride)
        options = ScoreOptions(context=LENGTH, stride=stride)
        found = score_protocol("transformers", checkpoint, StringSource(TEXTS), options)[1]
        even = score_protocol("transformers-corrected", checkpoint, StringSource(TEXTS), options)[1]
        assert found.tokens_read == len(ids)
        assert (found.value, even.value) == pytest.approx(expected, rel=1e-6)
        assert (found.value == pytest.approx(even.value, rel=1e-12)) == (stride == LENGTH)
