"""A checkpoint whose model is loaded when it is needed, and not before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import SmallModel, checkpoint

from lossprobe.checkpoint.deferred import DeferredCheckpoint, TokenizerFacts, opened
from lossprobe.errors import CheckpointError

MODEL = checkpoint(SmallModel(), sha256="model")
TOKENIZER = TokenizerFacts.of(MODEL.tokenizer)


def deferred(**facts):
    """Return a checkpoint with some facts that are not its own, and how often its model was loaded."""
    loads = []

    def load():
        loads.append(1)
        return MODEL

    return DeferredCheckpoint(replace(MODEL.facts, **facts), TOKENIZER, load), loads


def test_what_names_a_run_loads_nothing():
    made, loads = deferred()
    names = ("kind", "sha256", "bos_id", "eos_id", "adds_bos")
    assert [getattr(made.tokenizer, name) for name in names] == [getattr(MODEL.tokenizer, name) for name in names]
    assert made.facts.vocab_size == MODEL.facts.vocab_size
    assert loads == []


@pytest.mark.parametrize(
    "use",
    [
        lambda made: made.hidden(torch.zeros((1, 2), dtype=torch.long)),
        lambda made: made.tokenizer.encode("abc"),
        lambda made: made.tokenizer.token_bytes(97),
        lambda made: made.tokenizer.special_ids,
        opened,
    ],
)
def test_all_else_loads_it_once(use):
    made, loads = deferred(kernels="as it was on another machine", device="cuda:3")
    use(made)
    use(made)
    assert loads == [1]
    assert opened(made) is MODEL
    assert (made.facts, made.tokenizer) == (MODEL.facts, MODEL.tokenizer), "what was measured is of now"


@pytest.mark.parametrize(
    "facts", [{"sha256": "other"}, {"context_length": 7}, {"batching": "one window"}, {"name": "x"}]
)
def test_one_that_is_not_what_was_said_of_it_is_refused(facts):
    made, _ = deferred(**facts)
    with pytest.raises(CheckpointError, match="changed") as caught:
        made.opened()
    assert caught.value.id == "checkpoint.changed"


def test_one_that_is_open_is_itself():
    assert opened(MODEL) is MODEL
