"""Patterns of adapter_config.json: none can stop the program, and what peft passes over in silence is told."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
from checkpoint import builders

from lossprobe.checkpoint.adapters import patterns
from lossprobe.checkpoint.adapters.patterns import doubtful_patterns, matched_patterns
from lossprobe.errors import CheckpointError

FOLDER = Path("lora")
NESTED = r"([\w.]+)*X"  # tries each of the 2^30 ways to cut a name of 31 characters
# As unsloth writes target_modules.
OF_PARTS = (
    r"(?:.*?(?:vision|image|model|text).*?(?:self_attn|attention|attn|mlp).*?(?:q_proj|up_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|up_proj)))"
)
PATTERNS = {
    "target_modules": OF_PARTS,
    "exclude_modules": r"(?!.*layers\.1).*up_proj",
    "layers_to_transform": [0],
    "rank_pattern": {r"^model\.layers\.\d+\.self_attn.q_proj": 2, "up_proj": 8, "no_such": 3},
    "alpha_pattern": {"q_proj": 3, "layers.1.self_attn.q_proj": 5},
}


@pytest.fixture(scope="module")
def names():
    return [name for name, _ in builders.model("llama").named_modules()]


SLOW = pytest.mark.thorough


@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": NESTED},
        {"target_modules": ["q_proj"], "rank_pattern": {NESTED: 2}},
        pytest.param({"target_modules": ["q_proj"], "alpha_pattern": {NESTED: 2}}, marks=SLOW),
        pytest.param({"target_modules": ["q_proj"], "exclude_modules": NESTED}, marks=SLOW),
        pytest.param({"target_modules": ["q_proj"], "modules_to_save": [NESTED]}, marks=SLOW),
        pytest.param({"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": NESTED}, marks=SLOW),
    ],
)
def test_a_pattern_that_takes_for_ever_is_refused(names, monkeypatch, values):
    monkeypatch.setattr(patterns, "SECONDS", 0.2)
    with pytest.raises(CheckpointError, match=r"take more than 0\.2 s to match") as caught:
        matched_patterns(FOLDER, values, names)
    assert caught.value.id == "adapter.config_value"


@pytest.mark.parametrize("pattern", ["(q_proj", "q_proj)?*"])
def test_what_is_no_regular_expression_is_refused(names, pattern):
    with pytest.raises(CheckpointError, match=r"target_modules: .* is no regular expression") as caught:
        matched_patterns(FOLDER, {"target_modules": pattern}, names)
    assert caught.value.id == "adapter.config_value"


def test_patterns_match_what_they_match_in_peft(names):
    found = matched_patterns(FOLDER, PATTERNS, names)
    config = peft.LoraConfig(**{key: PATTERNS[key] for key in ("target_modules", "exclude_modules")})
    matching = peft.tuners.tuners_utils.check_target_module_exists
    by_peft = {name for name in names if matching(config, name)}
    assert found["target_modules"][OF_PARTS] - found["exclude_modules"][PATTERNS["exclude_modules"]] == by_peft
    assert len(by_peft) == 3
    for name in by_peft:
        key = peft.utils.other.get_pattern_key(PATTERNS["rank_pattern"], name)
        assert name in found["rank_pattern"][key]


def test_names_are_matched_without_a_child(names, monkeypatch):
    monkeypatch.setattr(patterns.subprocess, "run", None)
    found = matched_patterns(FOLDER, {"modules_to_save": ["lm_head"], "rank_pattern": {"0.mlp.up_proj": 2}}, names)
    assert found == {"modules_to_save": {"lm_head": {"lm_head"}}, "rank_pattern": {"0.mlp.up_proj": {
        "model.layers.0.mlp.up_proj"
    }}}  # fmt: skip


def test_patterns_that_are_passed_over_and_that_compete_are_told(names):
    """peft sorts the patterns where it saves, and the first that matches counts where it loads."""
    found = matched_patterns(FOLDER, PATTERNS, names)
    changed = [name for name in names if name.endswith(("q_proj", "up_proj"))]
    said = list(doubtful_patterns(found, PATTERNS, changed))
    assert said == [
        "rank_pattern of the adapter: no_such matches none of its modules, and changes nothing",
        "alpha_pattern of the adapter: q_proj and layers.1.self_attn.q_proj both match model.layers.1.self_attn.q_proj"
        "; the first counts, in training it may have been the other",
    ]
    alike = PATTERNS | {"alpha_pattern": dict.fromkeys(PATTERNS["alpha_pattern"], 3)}
    assert not [line for line in doubtful_patterns(found, alike, changed) if line.startswith("alpha")]
