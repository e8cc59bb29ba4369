"""The longest input of a model: positions in a table are a hard limit, computed positions are not."""

import json

import pytest
import torch
import transformers
from checkpoint import builders
from families import sweep, tiny

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.model.context import context_limit
from lossprobe.checkpoint.model.model_config import causal_model

pytestmark = pytest.mark.filterwarnings("default")  # the code of many families has its own

LIMITS = {
    "gpt2": (64, True),
    "opt": (64, True),  # its table is two longer
    "gptj": (64, True),  # a rotary table in a buffer
    "marian": (64, True),  # sinusoids in a table
    "mpt": (64, True),  # ALiBi, made for exactly max_seq_len
    "whisper": (64, True),  # max_target_positions
    "roberta": (62, True),
    "xglm": (64, False),  # sinusoids in a table that grows
    "llama": (64, False),
    "granitemoehybrid": (64, False),  # no positions at all
    "bloom": (None, False),
    "mamba": (None, False),
    "xlnet": (None, False),  # says -1
}


def made(family, **changes):
    config = transformers.AutoConfig.for_model(family, **tiny.settings(family) | changes)
    model_class, config = causal_model(config)
    return model_class(config).eval()


def limit(model):
    found = context_limit(model, "config.json")
    return found.length, found.hard


@pytest.mark.parametrize("family", LIMITS)
def test_the_limit_is_where_transformers_fails(family):
    model = made(family)
    length, hard = LIMITS[family]
    assert limit(model) == (length, hard)
    assert sweep.runs(model, length or 200)
    assert sweep.runs(model, (length or 200) + 1) != hard


@pytest.mark.parametrize(("padding", "usable"), [(0, 63), (1, 62), (5, 58), (62, 1)])
def test_positions_after_the_paddings(padding, usable):
    model = made("roberta", pad_token_id=padding)
    assert limit(model) == (usable, True)
    assert sweep.runs(model, usable)
    assert not sweep.runs(model, usable + 1)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"max_position_embeddings": 0}, "max_position_embeddings is 0, no token has a position"),
        ("llama", {"max_position_embeddings": -2048}, "max_position_embeddings is -2048, no token has a position"),
    ],
)
def test_a_length_that_leaves_room_for_nothing(tmp_path, family, changes, message):
    path = builders.save(builders.model(family), tmp_path / family)
    builders.reconfigure(path, **changes)
    assert builders.refused(path, "checkpoint.config_value").endswith(message)


def test_a_table_that_only_the_padding_fits_into(tmp_path):
    tiny.save("roberta", tmp_path, max_position_embeddings=2)
    message = builders.refused(tmp_path, "checkpoint.config_value")
    assert message.endswith("max_position_embeddings is 2, but positions begin after the padding's, 1")


def test_a_file_that_states_no_length(tmp_path):
    path = builders.save(builders.model("llama"), tmp_path / "llama")
    builders.reconfigure(path, max_position_embeddings=1)
    assert open_checkpoint(path).facts.context_length == 1
    builders.reconfigure(path, drop=("max_position_embeddings",))
    assert "max_position_embeddings" not in json.loads((path / "config.json").read_text())
    facts = open_checkpoint(path).facts
    assert (facts.context_length, facts.hard_limit) == (2048, False)
    assert "max_position_embeddings 2048" in facts.notices[0]


@pytest.mark.parametrize("family", ["roberta", "gpt2", "opt"])
def test_padding_on_the_left_shifts_no_position(tmp_path, family):
    tiny.save(family, tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    ids = torch.arange(100, 120)
    padded = torch.cat([torch.full((7,), 40), ids])[None]
    left = checkpoint.hidden_left_padded(padded, torch.tensor([7]))[0, 7:]
    assert torch.allclose(left, checkpoint.hidden(ids[None])[0], atol=1e-4)
