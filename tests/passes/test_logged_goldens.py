"""Losses that transformers' Trainer and TRL's SFTTrainer logged for small models, from one pass each.

Recorded with transformers 5.23.0, accelerate 1.15.0 and TRL 1.16.0 in float32 on one thread.
"""

import json

import pytest
from logged_models import LENGTHS, TEXTS, chat_tokenizer, rows, saved, small_llama, without_weights, word_tokenizer

from lossprobe.analysis.options import LoggedOptions
from lossprobe.analysis.protocols.protocols import measure_protocol
from lossprobe.passes.protocols import score_protocol
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import StringSource


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of the model, and of the same with zero weights, by the protocol of the Trainer."""
    found = {}
    for name in ("zero", "real"):
        model = without_weights(small_llama(61)) if name == "zero" else small_llama(61)
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
    tokenizer = chat_tokenizer()
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


def test_the_trainer_under_autocast(tmp_path):
    checkpoint = saved(tmp_path, small_llama(61), word_tokenizer(), dtype="autocast")
    run, _ = score_protocol("trainer", checkpoint, StringSource(rows()))
    loss = measure_protocol(run, "trainer", LoggedOptions(rows_per_batch=3)).value
    assert loss == pytest.approx(4.339592, abs=1e-3)
    assert loss != pytest.approx(4.339776, abs=1e-6), "what float32 gives"
    assert run.settings.checkpoint.compute_dtype == "bfloat16 autocast"


def test_bf16_full_eval_casts_the_weights(tmp_path):
    checkpoint = saved(tmp_path, small_llama(61), word_tokenizer(), dtype="bfloat16")
    run, _ = score_protocol("trainer", checkpoint, StringSource(rows()))
    assert measure_protocol(run, "trainer", LoggedOptions(rows_per_batch=3)).value == pytest.approx(4.338953, abs=1e-3)


def test_trl_under_autocast_which_is_its_default(tmp_path):
    tokenizer = chat_tokenizer()
    checkpoint = saved(tmp_path, small_llama(len(tokenizer)), tokenizer, dtype="autocast")
    run, _ = score_protocol("trl", checkpoint, StringSource(TEXTS))
    assert measure_protocol(run, "trl", LoggedOptions(rows_per_batch=3)).value == pytest.approx(6.107375, abs=1e-3)
