"""Losses that Trainer and SFTTrainer logged for a small mixture of experts that asks for its load-balancing loss.

Recorded with transformers 5.24.0, accelerate 1.15.0 and TRL 1.16.0 in float32 on one thread; two ranks by torchrun.
"""

from dataclasses import replace

import pytest
import torch
from logged_models import small_llama
from passes.test_logged_goldens import rows, saved, word_tokenizer
from transformers import MixtralConfig, MixtralForCausalLM

from lossprobe.analysis.options import LoggedOptions
from lossprobe.analysis.protocols.protocols import measure_protocol
from lossprobe.checkpoint.interface import prefix_of
from lossprobe.passes.protocols import score_protocol
from lossprobe.text.documents import StringSource

COEFFICIENT = 0.1


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the runs of both protocols, and of the Trainer's where the configuration does not ask for the loss."""
    found = {}
    for asked in (True, False):
        checkpoint = saved(tmp_path_factory.mktemp("routed"), small_mixtral(asked=asked), word_tokenizer())
        for protocol in ("trainer", "trl") if asked else ("trainer",):
            name = protocol if asked else "unasked"
            found[name] = score_protocol(protocol, checkpoint, StringSource(rows()))[0]
    return found


def small_mixtral(*, asked):
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=61, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, num_local_experts=4, num_experts_per_tok=2,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, router_aux_loss_coef=COEFFICIENT, output_router_logits=asked,
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(8.0)
        for name, weight in model.named_parameters():
            if "gate.weight" in name:
                weight.mul_(20)
    return model.eval()


@pytest.mark.parametrize(
    ("options", "trainer", "trl"),
    [
        ({"rows_per_batch": 1}, 4.354173, 4.354173),
        ({"rows_per_batch": 2}, 4.353873, 4.353872),
        ({"rows_per_batch": 3}, 4.392453, 4.392453),
        ({"rows_per_batch": 7}, 4.398635, 4.398635),
        ({"rows_per_batch": 1, "ranks": 2}, 4.674946, 4.354173),
        ({"rows_per_batch": 2, "ranks": 2}, 4.679538, 4.377352),
        ({"rows_per_batch": 2, "smoothing": 0.1}, 4.167416, 4.167416),
    ],
)
def test_the_router_loss_is_in_the_number(options, trainer, trl, runs):
    for name, logged in (("trainer", trainer), ("trl", trl)):
        assert measured(runs[name], name, **options).value == pytest.approx(logged, abs=1.5e-6), name


def measured(run, protocol, **options):
    return measure_protocol(run, protocol, LoggedOptions(**options))


def test_pairs_share_no_prompt_in_a_mixture_of_experts(tmp_path):
    """Its router sums count every token of each side; a plain model of the same sizes reads a prompt once."""
    assert prefix_of(saved(tmp_path / "routed", small_mixtral(asked=False), word_tokenizer())) is None
    assert prefix_of(saved(tmp_path / "plain", small_llama(61), word_tokenizer())) is not None


def test_the_order_of_the_rows_decides_its_batches(runs, tmp_path):
    backwards = tmp_path / "order.txt"
    backwards.write_text("\n".join(map(str, reversed(range(7)))))
    assert measured(runs["trl"], "trl", rows_per_batch=7, order=backwards).value == pytest.approx(4.398635, abs=1.5e-6)
    one_way, other = (measured(runs["trl"], "trl", rows_per_batch=2, order=each).value for each in (None, backwards))
    assert abs(one_way - other) > 1e-3


def test_the_trainer_adds_nothing_unasked_and_a_note_says_so(runs):
    score = measured(runs["unasked"], "trainer", rows_per_batch=2)
    assert score.value == pytest.approx(4.152544, abs=1e-6)  # as TRL with router_aux_loss_coef=0.0
    assert any("output_router_logits" in note for note in score.notes)
    assert any("times 0.1 (router_aux_loss_coef)" in note for note in measured(runs["trl"], "trl").notes)


def test_the_number_is_refused_without_the_sums(runs):
    run = runs["trl"]
    files = {name: digest for name, digest in run.manifest["files"].items() if not name.startswith("routing")}
    score = measured(replace(run, manifest={**run.manifest, "files": files}), "trl")
    assert score.value is None
    assert any("no router sums" in note for note in score.notes)


def test_a_row_that_is_masked_or_of_one_token_counts_in_its_batch(runs, tmp_path):
    checkpoint = saved(tmp_path / "model", small_mixtral(asked=True), word_tokenizer())
    run = score_protocol("trl", checkpoint, StringSource(["w5", "w3 w4 w5 w6"]))[0]
    tokens = run.query("SELECT document, max(tokens) AS tokens FROM routing GROUP BY 1 ORDER BY 1")["tokens"]
    assert tokens.tolist() == run.query("SELECT tokens FROM documents ORDER BY document")["tokens"].tolist()
