"""Losses that transformers' Trainer and TRL's SFTTrainer logged for small models, from one pass each.

Recorded with transformers 5.23.0, accelerate 1.15.0 and TRL 1.16.0 in float32 on one thread.
"""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lossprobe.analysis.options import LoggedOptions
from lossprobe.analysis.protocols.protocols import measure_protocol
from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.passes.protocols import score_protocol
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import StringSource

LENGTHS = (5, 17, 9, 30, 4, 12, 7)
SPECIAL = ("<|pad|>", "<|bos|>", "<|im_end|>", "<|im_start|>", "<|eot|>")
TEXTS = [
    "the cat sat on the mat", "hello world", "the dog ran home and the cat sat on the mat and ran home", "four",
    "the answer is four five six", "hello the dog", "the mat is home",
]  # fmt: skip
CORPUS = "the cat sat on the mat and the dog ran home\n\nuser assistant system hello world the answer is four five six"


def small_llama(entries):
    """Return a model of two layers with logits that differ clearly."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=entries, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(8.0)
    return model.eval()


def rows():
    """Return a text of each row: each word is the name of an id."""
    drawn = torch.Generator().manual_seed(1)
    ids = [[1, *torch.randint(3, 61, (length - 1,), generator=drawn).tolist()] for length in LENGTHS]
    return [" ".join(f"w{index}" for index in row) for row in ids]


def saved(folder, model, tokenizer):
    """Return the model, saved in a folder with its tokenizer and opened from there."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return open_checkpoint(folder)


def word_tokenizer():
    """Return a tokenizer of 61 words."""
    backend = Tokenizer(models.WordLevel({f"w{index}": index for index in range(61)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of the model, and of the same with zero weights, by the protocol of the Trainer."""
    found = {}
    for name in ("zero", "real"):
        model = small_llama(61)
        if name == "zero":
            with torch.no_grad():
                for weight in model.parameters():
                    weight.zero_()
        checkpoint = saved(tmp_path_factory.mktemp(name), model, word_tokenizer())
        found[name] = score_protocol("trainer", checkpoint, StringSource(rows()))[0]
    return found


@pytest.mark.parametrize(
    ("name", "options", "logged"),
    [
        ("zero", {"rows_per_batch": 8}, 4.110874),
        ("zero", {"rows_per_batch": 3}, 4.110874),
        ("zero", {"rows_per_batch": 7, "label_count": "all"}, 3.768301),
        ("zero", {"rows_per_batch": 3, "label_count": "all"}, 3.741581),
        ("zero", {"rows_per_batch": 2, "ranks": 2}, 4.208752),
        ("zero", {"rows_per_batch": 4, "ranks": 2}, 4.350131),
        ("real", {"rows_per_batch": 1}, 4.218382),
        ("real", {"rows_per_batch": 2}, 4.323907),
        ("real", {"rows_per_batch": 3}, 4.339776),
        ("real", {"rows_per_batch": 7}, 4.336402),
        ("real", {"rows_per_batch": 2, "smoothing": 0.1}, 4.323216),
        ("real", {"rows_per_batch": 3, "smoothing": 0.1}, 4.337300),
        ("real", {"rows_per_batch": 1, "ranks": 2}, 4.448491),
        ("real", {"rows_per_batch": 2, "ranks": 2}, 4.402462),
    ],
)
def test_the_trainer(name, options, logged, runs):
    score = measure_protocol(runs[name], "trainer", LoggedOptions(**options))
    assert score.value == pytest.approx(logged, abs=1e-6)


def test_the_order_of_the_rows_is_part_of_the_number(runs, tmp_path):
    backwards = tmp_path / "order.txt"
    backwards.write_text("\n".join(map(str, reversed(range(7)))))
    loss = measure_protocol(runs["real"], "trainer", LoggedOptions(rows_per_batch=2, order=backwards)).value
    sums = [16.036342, 71.500969, 34.1395, 126.940515, 11.017115, 48.105767, 26.162774][::-1]
    counts = [length - 1 for length in LENGTHS][::-1]
    batches = [(sum(sums[at : at + 2]), sum(counts[at : at + 2]), len(sums[at : at + 2])) for at in range(0, 7, 2)]
    assert loss == pytest.approx(sum(total / count * size for total, count, size in batches) / 7, abs=1e-6)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A model with a byte-level tokenizer, whose EOS ends the turns of a conversation."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([CORPUS] * 20, trainer)
    names = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>", "bos_token": "<|bos|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    return saved(tmp_path_factory.mktemp("chat"), small_llama(len(tokenizer)), tokenizer)


@pytest.fixture(scope="module")
def trl_run(chat_model):
    """Its run by the protocol of TRL."""
    return score_protocol("trl", chat_model, StringSource(TEXTS))[0]


@pytest.mark.parametrize(
    ("options", "logged"),
    [
        ({"rows_per_batch": 1}, 6.158716), ({"rows_per_batch": 3}, 6.107604), ({"rows_per_batch": 7}, 6.117225),
        ({"rows_per_batch": 3, "smoothing": 0.1}, 6.095718),
    ],
)  # fmt: skip
def test_trl(options, logged, trl_run):
    assert measure_protocol(trl_run, "trl", LoggedOptions(**options)).value == pytest.approx(logged, abs=1e-6)


def test_what_else_trl_logs(trl_run):
    table = measure_protocol(trl_run, "trl", LoggedOptions(rows_per_batch=3)).table.set_index("measure")["value"]
    assert table["eval_entropy"] == pytest.approx(5.561008, abs=1e-6)
    assert table["eval_mean_token_accuracy"] == pytest.approx(0.083333, abs=1e-6)
    assert table["nll"] == pytest.approx(6.117224, abs=1e-6)


def test_trl_cuts_rows_at_their_end(chat_model):
    run = score_protocol("trl", chat_model, StringSource(TEXTS), ScoreOptions(context=4))[0]
    assert measure_protocol(run, "trl").value == pytest.approx(6.082201, abs=1e-6), json.dumps(run.counts)
