"""Models that one GPU has no room for: the choice with stand-ins for GPUs, and the hooks of accelerate on the CPU."""

from __future__ import annotations

import pytest
import torch
from checkpoint import builders

from lossprobe.checkpoint.families import huggingface, streaming
from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.model import spread
from lossprobe.checkpoint.options import LoadOptions

IDS = torch.arange(24).reshape(2, 12) * 7 % builders.VOCABULARY
PARTS = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")


@pytest.fixture
def machine(monkeypatch):
    """Return a function that sets how many bytes are free in memory and on each GPU."""

    def have(memory, *gpus):
        free = {"cpu": memory, "cuda": gpus[0] if gpus else None}
        free |= {f"cuda:{number}": room for number, room in enumerate(gpus)}
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        for module in (spread, streaming):
            monkeypatch.setattr(module, "free_memory", lambda place="cpu": free[place])

    return have


@pytest.mark.parametrize(
    ("memory", "gpus", "device", "stream", "expected"),
    [
        (10_000, (2000, 2000), "cuda", "auto", []),  # 1,000 bytes fit on one
        (10_000, (1050, 2000), "cuda", "auto", [0, 1]),  # with what a pass needs beside them they do not
        (10_000, (600, 600), "cuda", "auto", [0, 1]),
        (10_000, (600, 600), "cuda", "never", [0, 1]),
        (10_000, (600, 600), "cuda", "always", []),
        (10_000, (600, 600), "cuda:0", "auto", []),  # one was named
        (10_000, (400, 400), "cuda", "auto", []),  # too little on both
        (10_000, (600,), "cuda", "auto", []),
        (900, (600, 600), "cuda", "auto", []),  # they go through memory
        (10_000, (), "cpu", "auto", []),
    ],
)
def test_layers_are_spread_where_one_gpu_has_no_room_and_all_have(
    machine, monkeypatch, memory, gpus, device, stream, expected
):
    machine(memory, *gpus)
    monkeypatch.setattr(streaming, "needed_bytes", lambda *_: 1000)
    options = LoadOptions(device, stream_weights=stream)
    assert streaming.gpus_for(None, torch.float32, options) == expected
    if expected:
        assert streaming.why_streamed(None, torch.float32, options) is None
        monkeypatch.setattr(streaming, "can_spread", lambda: False)
        assert streaming.gpus_for(None, torch.float32, options) == []
        told = streaming.why_streamed(None, torch.float32, LoadOptions(device))
        assert told is None or told.endswith('(over 2 GPUs with pip install "lossprobe[accelerate]")')


@pytest.mark.parametrize("family", ["llama", "gemma2"])  # Gemma 2 has a soft cap, which only its own head shows
def test_a_spread_model_is_split_as_a_whole_one(tmp_path, monkeypatch, family):
    pytest.importorskip("accelerate")
    path = builders.save(builders.model(family), tmp_path)
    whole = load_huggingface(path, LoadOptions())
    moved = []
    monkeypatch.setattr(huggingface, "gpus_for", lambda *_: [0, 1])
    monkeypatch.setattr(
        huggingface,
        "spread_over",
        lambda model, gpus: moved.append(gpus) or spread.dispatched(model, dict.fromkeys(PARTS, "cpu")),
    )
    hooked = load_huggingface(path, LoadOptions())
    assert moved == [[0, 1]]
    assert hooked._model.model.layers[1]._hf_hook is not None
    assert "forward" not in vars(hooked._model), "a copy of it runs its own code"
    assert (hooked.facts.head, hooked.facts.device) == (whole.facts.head, "cpu")
    assert any("its layers are spread over 2" in notice for notice in hooked.facts.notices)
    for model in (whole, hooked):
        assert model.hidden(IDS).shape == (2, 12, 32)
    logits = [model.logits(model.hidden(IDS).flatten(0, 1)) for model in (whole, hooked)]
    torch.testing.assert_close(logits[0], logits[1], atol=2e-5, rtol=1e-5)
