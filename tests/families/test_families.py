"""A sample of the sweep over all families (`make families`): unusual ones, and one of each kind of positions."""

from __future__ import annotations

import pytest
import torch
from families import sweep, tiny
from families.table import NOT_RUN, OVERRIDES, REFUSED
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lossprobe.checkpoint.detect import open_checkpoint

pytestmark = pytest.mark.filterwarnings("default")  # the code of twelve families has its own

SAMPLE = {
    "electra": "64 tokens, full head",  # a layer between body and head
    "falcon": "64 tokens and more, linear head",
    "gemma4_text": "64 tokens and more, linear head",  # other sizes in other layers
    "jamba": "64 tokens and more, linear head",  # states and attention without positions
    "llama4": "64 tokens and more, linear head",  # the text part of a model with images
    "mamba2": "no limit, linear head",
    "mllama": "64 tokens and more, linear head",
    "mpt": "64 tokens, linear head",
    "roberta": "62 tokens, full head",  # positions begin after the padding's
    "whisper": "64 tokens, linear head",
    "xglm": "64 tokens and more, linear head",  # a table that grows
    "xlnet": "later tokens change earlier logits",
}

# No two of them are alike. The positions of roberta and xglm, the slowest, are tested by checkpoint/test_context.
QUICK = ("electra", "gemma4_text", "mamba2", "xlnet")


@pytest.mark.parametrize(
    "family",
    [family if family in QUICK else pytest.param(family, marks=pytest.mark.thorough) for family in SAMPLE],
)
def test_losses_are_those_of_transformers(tmp_path, family):
    verdict = sweep.try_family(family, tmp_path)
    assert verdict.as_expected, verdict
    assert SAMPLE[family] in verdict.detail


def test_a_wrong_pass_shows(tmp_path):
    tiny.save("falcon", tmp_path)
    model = sweep.reference_model(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert sweep.difference(tmp_path, checkpoint, model, None) < sweep.TOLERANCE
    with torch.no_grad():
        model.transformer.h[1].input_layernorm.weight[3] *= 1.1
    assert sweep.difference(tmp_path, checkpoint, model, None) > 10 * sweep.TOLERANCE


def test_what_is_not_as_the_table_says_is_reported(capsys, monkeypatch):
    outcomes = {
        "llama": sweep.Verdict("llama", "WRONG", "64 tokens", 0.1),
        "gpt2": sweep.Verdict("gpt2", "right", "64 tokens", 1e-6),
        "opt": sweep.Verdict("opt", "not run", "ImportError: x"),
        "xlnet": sweep.Verdict("xlnet", "right", "64 tokens"),
        "cpmant": sweep.Verdict("cpmant", "checkpoint.not_causal", "x"),
        "gemma3n": sweep.Verdict("gemma3n", "not run", "ImportError: it requires the timm library"),
    }
    monkeypatch.setattr(sweep, "try_family", lambda family, folder: outcomes[family])
    assert sweep.main(list(outcomes)) == 1
    assert capsys.readouterr().out.endswith("6 families; not as expected: llama, opt, xlnet\n")
    assert sweep.main(["gpt2", "cpmant", "gemma3n"]) == 0


def test_the_table_names_families_that_there_are():
    assert set(OVERRIDES) | set(REFUSED) | set(NOT_RUN) <= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert not set(REFUSED) & set(NOT_RUN)
