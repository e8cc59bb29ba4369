"""What training programs print is read as a person reads it."""

import math

import pytest
from written_logs import points, read

from lossprobe.errors import UsageError
from lossprobe.logs.log import ACCURACY, EVALUATED_TRAIN, GRADIENT_NORM, LEARNING_RATE, LOSS, TRAIN, VALIDATION
from lossprobe.logs.printed import PROGRAMS

NANOGPT = """found vocab_size = 65 (inside data/x/meta.pkl)
step 0: train loss 4.3480, val loss 4.3422
iter 0: loss 4.3206, time 17491.39ms, mfu -100.00%
iter 10: loss 3.1820, time 35.78ms, mfu 10.41%
step 10: train loss 2.0000, val loss 2.1000
saving checkpoint to out
iter 20: loss nan, time 35.78ms, mfu 10.41%
Traceback (most recent call last):
KeyboardInterrupt"""

LLMC = """| vocab_size V          | 50257                                              |
| padded_vocab_size Vp  | 50304                                              |
val loss 11.008742
step    1/19560 | loss 11.010252 (+nanz)| norm 15.1374 (+nanz)| lr 8.57e-07 | 4621.47 ms | 29.2% bf16 MFU | 113446 tok/s
step    2/19560 | loss 10.956968 (+1.2z)| norm 15.2986 (-0.1z)| lr 1.71e-06 | 4557.77 ms | 29.6% bf16 MFU | 115032 tok/s
val loss 10.208999
evaluating HellaSwag: 0/1256\revaluating HellaSwag: 10/1256\rHellaSwag: 2500/10042 = 0.248954
step    3/19560 | loss 10.8"""

MEGATRON = """ > padded vocab (size: 50257) with 47 dummy tokens (new size: 50304)
31:  [2026-01-01 00:00:00] iteration        1/     200 | consumed samples:          288 | learning rate: 8.0E-07 | \
lm loss: 1.217164E+01 | loss scale: 1.0 | grad norm: 5.507 | params norm: 663.290 | number of nan iterations:   0 |
31:  [2026-01-01 00:00:09] iteration        2/     200 | consumed samples:          576 | learning rate: 1.6E-06 | \
lm loss: 1.217150E+01 | loss scale: 1.0 | grad norm: 5.568 | params norm: 663.289 | number of nan iterations:   0 |
 validation loss at iteration 2 on validation set | lm loss value: 1.2100E+01 | lm loss PPL: 1.8E+05 |
 validation loss at iteration 2 on test set | lm loss value: 1.2200E+01 | lm loss PPL: 1.8E+05 |
"""

BAR = "\r  1%|{}| {}/20 [00:01<00:10, 1.5it/s]"

OLMO = """
[2024-04-17 09:42:26] INFO     [olmo.train:816, rank=0] [step=10/739328,epoch=0]
    optim/total_grad_norm=231.7
    train/CrossEntropyLoss=11.25
    train/Perplexity=76,631
    throughput/total_tokens=4,194,304
    System/Peak GPU Memory (MB)=42,133
[2024-04-17 09:42:38] INFO     [olmo.train:816, rank=0] [step=20/739328,epoch=0]
    optim/total_grad_norm=1.5
    train/CrossEntropyLoss=10.73
    throughput/total_tokens=8,388,608
[2024-04-17 09:42:39] INFO     [olmo.train:902, rank=0] [eval_step=16/16]
[2024-04-17 09:42:39] INFO     [olmo.train:816, rank=0] c4_val
    eval/c4_val/CrossEntropyLoss=10.6
"""
COMPOSER = """
[epoch=1/2][batch=1/2]:
\t Train time/batch: 0
\t Train loss/train/total: 12.0570
\t Train metrics/train/LanguageCrossEntropy: 12.0100
\t Train lr-DecoupledAdamW/group0: 0.0002
/usr/lib/checkpoint.py:31: UserWarning: None of the inputs
[epoch=1/2][batch=2/2]:
\t Train time/batch: 1
\t Train loss/train/total: 11.5000
[Eval batch=1/20] Eval on eval data
[Eval batch=20/20] Eval on eval data:
\t Eval metrics/eval/LanguageCrossEntropy: 11.2000
[epoch=2/2][batch=1/2]:
\t Train time/batch: 2
\t Train loss/train/total: 11.1000
"""


def hf_console(*, with_bars: bool) -> str:
    """Return a run of 2 epochs of 10 steps, logged every 5, with text for numbers and an epoch of 4 digits."""
    text = "Map: 100%|###| 900/900 [00:00<00:00, 9it/s]\n"
    for step in range(1, 21):
        text += BAR.format("#", step) if with_bars else ""
        if step % 5 == 0:
            text += f"\x1b[A\r{{'loss': '{4 - step / 10}', 'learning_rate': '1e-4', 'epoch': '{step / 10:.4g}'}}\n"
        if step % 10 == 0:
            text += "100%|#| 8/8 [00:01<00:00, 9it/s]\n" if with_bars else ""
            text += f"{{'eval_loss': '3.{step}', 'epoch': '{step // 10}'}}\n"
    return text + "{'train_runtime': '9.1', 'train_loss': '2.75', 'epoch': '2'}\n"


def test_nanogpt(tmp_path):
    log = read(tmp_path, NANOGPT)
    assert (log.kind, log.vocabulary, log.restarts) == ("nanogpt", 65, ())
    assert points(log.find(TRAIN, LOSS))[:2] == [(0, 4.3206), (10, 3.182)]
    assert math.isnan(points(log.find(TRAIN, LOSS))[2][1])
    assert points(log.find(VALIDATION, LOSS)) == [(0, 4.3422), (10, 2.1)]
    assert points(log.find(EVALUATED_TRAIN, LOSS)) == [(0, 4.348), (10, 2.0)]


def test_nanogpt_in_bits(tmp_path):
    text = NANOGPT.replace("loss 4.3206,", "loss 6.2333 BPC,").replace("loss 3.1820,", "loss 4.59 BPC,")
    log = read(tmp_path, text.replace("loss nan,", "loss 3.3 BPC,"))
    assert points(log.find(TRAIN, LOSS))[0][1] == pytest.approx(4.3206, abs=1e-4)
    assert any("bits" in note for note in log.notes)


def test_llmc_gives_a_validation_the_step_before_it(tmp_path):
    log = read(tmp_path, LLMC)
    assert (log.kind, log.vocabulary) == ("llmc", 50257)
    assert points(log.find(TRAIN, LOSS)) == [(1, 11.010252), (2, 10.956968)], "the third number was cut off"
    assert points(log.find(VALIDATION, LOSS)) == [(0, 11.008742), (2, 10.208999)]
    assert points(log.find(TRAIN, GRADIENT_NORM)) == [(1, 15.1374), (2, 15.2986)]
    assert points(log.find(TRAIN, LEARNING_RATE)) == [(1, 8.57e-07), (2, 1.71e-06)]
    assert points(log.find("hellaswag", ACCURACY)) == [(2, 0.248954)]
    assert any("last line has no end" in note for note in log.notes)


def test_megatron(tmp_path):
    log = read(tmp_path, MEGATRON)
    assert (log.kind, log.vocabulary) == ("megatron", 50304)
    assert points(log.find(TRAIN, LOSS)) == [(1, 12.17164), (2, 12.1715)]
    assert points(log.find(TRAIN, GRADIENT_NORM)) == [(1, 5.507), (2, 5.568)]
    assert points(log.find(VALIDATION, LOSS)) == [(2, 12.1)]
    assert points(log.find("test", LOSS)) == [(2, 12.2)]


def test_hf_console_takes_steps_from_the_bar_and_the_epochs(tmp_path):
    log = read(tmp_path, hf_console(with_bars=True))
    assert (log.kind, log.steps_counted) == ("hf_console", False)
    assert points(log.find(TRAIN, LOSS)) == [(5, 3.5), (10, 3.0), (15, 2.5), (20, 2.0)]
    assert points(log.find(VALIDATION, LOSS)) == [(10, 3.1), (20, 3.2)]
    assert points(log.find(TRAIN, "train_loss")) == [(20, 2.75)], "the mean of the whole run is no loss of a step"
    assert log.find(TRAIN, LOSS).epochs.tolist() == [0.5, 1, 1.5, 2]


def test_hf_console_without_a_bar_counts_rows_and_says_so(tmp_path):
    log = read(tmp_path, hf_console(with_bars=False))
    assert log.steps_counted
    assert points(log.find(TRAIN, LOSS)) == [(1, 3.5), (2, 3.0), (3, 2.5), (4, 2.0)]
    assert [step for step, _ in points(log.find(VALIDATION, LOSS))] == [2, 4]
    assert any("counted" in note for note in log.notes)


def test_hf_console_without_a_bar_takes_steps_from_what_the_trainer_says(tmp_path):
    said = "***** Running training *****\n  Num Epochs = 2\n  Total optimization steps = 20\n"
    log = read(tmp_path, said + hf_console(with_bars=False))
    assert [step for step, _ in points(log.find(TRAIN, LOSS))] == [5, 10, 15, 20]
    assert any("that the trainer says, 10 an epoch" in note for note in log.notes)


@pytest.mark.parametrize(("speed", "counted"), [(2.346, False), (0.001, True)])
def test_hf_console_without_a_bar_takes_steps_from_a_speed_that_is_exact_enough(tmp_path, speed, counted):
    rows = [f"{{'loss': {4 - row / 50}, 'epoch': {10 * row / 559:.2f}}}" for row in range(1, 168)]  # 1,677 steps
    end = f"{{'train_runtime': {1677 / speed:.4f}, 'train_steps_per_second': {speed}, 'epoch': 3.0}}"
    log = read(tmp_path, "\n".join([*rows, end, ""]))
    assert log.steps_counted is counted
    assert [step for step, _ in points(log.find(TRAIN, LOSS))][:3] == ([1, 2, 3] if counted else [10, 20, 30])


def test_lines_of_another_kind_of_log_are_told(tmp_path):
    other = "".join(f"step {step}/9 | loss 3.{step} (+nanz)| norm 1.0 (+nanz)| lr 1e-4 |\n" for step in range(1, 4))
    log = read(tmp_path, f"{NANOGPT}\n{other}")
    assert log.kind == "nanogpt"
    assert "3 lines or more are those of another kind of log (llmc): not read as such" in log.notes
    assert not any("another kind" in note for note in read(tmp_path, NANOGPT).notes)


def test_olmo_has_its_step_in_a_heading(tmp_path):
    log = read(tmp_path, OLMO)
    assert (log.kind, log.restarts) == ("olmo", ())
    assert points(log.find(TRAIN, LOSS)) == [(10, 11.25), (20, 10.73)]
    assert points(log.find(TRAIN, GRADIENT_NORM)) == [(10, 231.7), (20, 1.5)]
    assert points(log.find("c4_val", LOSS)) == [(20, 10.6)]
    assert log.find(TRAIN, LOSS).tokens.tolist() == [4_194_304, 8_388_608]


def test_composer_counts_batches_of_the_run_and_not_of_the_epoch(tmp_path):
    log = read(tmp_path, COMPOSER)
    assert (log.kind, log.restarts) == ("composer", ())
    assert points(log.find(TRAIN, LOSS)) == [(1, 12.057), (2, 11.5), (3, 11.1)]
    assert points(log.find(VALIDATION, LOSS)) == [(2, 11.2)]
    assert points(log.find(TRAIN, LEARNING_RATE))[0] == (1, 0.0002)


def test_epochs_of_fundamentallm_stand_for_steps(tmp_path):
    log = read(tmp_path, "Training\nEpoch 1: Loss = 4.234\nEpoch 2: Loss = 3.100\n")
    assert (log.kind, log.steps_counted) == ("fundamentallm", True)
    assert points(log.find(TRAIN, LOSS)) == [(1, 4.234), (2, 3.1)]
    assert points(read(tmp_path, "Epoch 1: Loss = 4.234").find(TRAIN, LOSS)) == [(1, 4.234)], "a single row"


@pytest.mark.parametrize(
    ("line", "series"),
    [
        ("Step 7 | loss:4.2 lr:2e-05 tokens_per_second:9.5 ", {(TRAIN, LOSS): 4.2, (TRAIN, LEARNING_RATE): 2e-5}),
        ("step     7 | loss: 10.95 | lr 4.2e-06 | norm: 15.3 | dt: 338.12ms", {(TRAIN, GRADIENT_NORM): 15.3}),
        ("INFO root epoch=3 step=7 loss=3.21 lr=1e-4", {(TRAIN, LOSS): 3.21}),
        ("Step 7/90, Train Loss: 2.31, Val Loss: 2.5", {(TRAIN, LOSS): 2.31, (VALIDATION, LOSS): 2.5}),
        ("\r1|7|Loss: 2.5:  50%|#| 7/14 [00:01]\r1|7|Loss: 2.5:  50%|#| 7/14 [00:02]", {(TRAIN, LOSS): 2.5}),
        ("Iter 7: Train loss 2.2, Learning Rate 1.0e-05, It/sec 0.5, Trained Tokens 4000", {(TRAIN, LOSS): 2.2}),
        ("[step=7/99,epoch=0] train/CrossEntropyLoss=5.2", {(TRAIN, LOSS): 5.2}),
        ("[Eval] step 7 loss 3.2", {(VALIDATION, LOSS): 3.2}),
        ("step 00007 | Validation bpb: 2.0", {(VALIDATION, LOSS): 2 * math.log(2)}),
        ("step:7/5100 val_loss:5.9 train_time:1234ms", {(VALIDATION, LOSS): 5.9}),
        ("iteration 7 loss -inf", {(TRAIN, LOSS): -math.inf}),
    ],
)  # fmt: skip
def test_lines_of_other_programs(tmp_path, line, series):
    log = read(tmp_path, f"starting\n{line}\n")
    for (split, name), value in series.items():
        assert points(log.find(split, name)) == [(7, pytest.approx(value))]


def test_chatter_is_no_log(tmp_path):
    lines = "hello\nsaving step 5 of nothing\nloss of data at /tmp/5\n"
    with pytest.raises(Exception, match="no training log"):
        read(tmp_path, lines)
    assert set(PROGRAMS) >= {"llmc", "megatron", "torchtune", "fundamentallm", "text"}


def test_the_log_of_build_nanogpt(tmp_path):
    log = read(
        tmp_path, "0 val 10.9511\n0 hella 0.2463\n0 train 10.955029\n1 train 10.902684\n2 train nan\n2 val 9.5\n"
    )
    assert log.kind == "nanogpt"
    assert points(log.find(TRAIN, LOSS))[:2] == [(0, 10.955029), (1, 10.902684)]
    assert points(log.find(VALIDATION, LOSS)) == [(0, 10.9511), (2, 9.5)]
    assert points(log.find("hellaswag", ACCURACY)) == [(0, 0.2463)]


def test_losses_in_the_lines_after_an_epoch(tmp_path):
    lines = (
        "Epoch: {0}/3\nTime Taken: 146.09s - LR: 9.98e-05\nTrain Loss: 7.{0} - Train Perplexity: 9\nValid Loss: 6.{0}\n"
    )
    log = read(tmp_path, "lr: 0.0001\n" + "---\n".join(lines.format(epoch) for epoch in (1, 2, 3)))
    assert points(log.find(TRAIN, LOSS)) == [(1, 7.1), (2, 7.2), (3, 7.3)]
    assert points(log.find(VALIDATION, LOSS)) == [(1, 6.1), (2, 6.2), (3, 6.3)]


def test_several_runs_without_steps_are_told_apart_by_their_epochs(tmp_path):
    runs = [[f"{{'loss': {loss - row / 100}, 'epoch': {round(row / 25, 2)}}}" for row in range(1, rows + 1)]
            for loss, rows in ((3.0, 40), (9.0, 50))]  # fmt: skip
    log = read(tmp_path, "\n".join(runs[0] + runs[1]) + "\n")
    assert points(log.find(TRAIN, LOSS))[::49] == [(1, 8.99), (50, 8.5)]
    assert "2 runs in one file" in log.notes[-1]


def test_a_text_that_quotes_a_loss_is_said_to_be_hardly_a_log(tmp_path):
    log = read(tmp_path, "# A model\n" * 300 + "It had at step 100 loss 3.2\n" + "and more\n" * 10)
    assert points(log.find(TRAIN, LOSS)) == [(100, 3.2)]
    assert log.notes[0] == "of 311 lines, 1 had numbers of training: it may be no log"
    assert read(tmp_path, "Epoch 1: Loss = 4.2\nEpoch 2: Loss = 4.1\n").notes[0].startswith("the log counts epochs")


NANOCHAT = "Step {0:05d}/00100 | Training loss: {1}| lrm: 1.000000| num_tokens: {2:,}\n"


def test_commas_between_thousands_part_no_number(tmp_path):
    tokens = (5_000, 1_005_100, 2_005_100)
    log = read(tmp_path, "".join(NANOCHAT.format(step, 2.5, each) for step, each in enumerate(tokens)))
    assert log.find(TRAIN, LOSS).tokens.tolist() == list(tokens)
    log = read(tmp_path, "step 1,006 | loss: 2.5\nstep 2,007, loss: 2.25, 3,4\n")
    assert points(log.find(TRAIN, LOSS)) == [(1006, 2.5), (2007, 2.25)]
    named = read(tmp_path, "it=1,006 Q 2.5\nit=2,007 Q 2.25\n", {"step": "it=", "loss": "Q"})
    assert points(named.find(TRAIN, LOSS)) == [(1006, 2.5), (2007, 2.25)]


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        ([100, 90, 105, 80, 120, 95], False),  # of each batch
        ([64] * 6, False),
        ([100, 200, 300, 0, 100, 200], True),  # the trainer began again to count
        ([100, 90], True),  # too few to say
    ],
)
def test_tokens_of_a_batch_are_no_tokens_so_far(tmp_path, tokens, kept):
    log = read(tmp_path, "".join(NANOCHAT.format(step, 2.5, each) for step, each in enumerate(tokens)))
    assert (log.find(TRAIN, LOSS).tokens is not None) == kept
    assert ("tokens counts the tokens of a row, not those so far: left out" in log.notes) != kept


def test_bits_per_byte_are_said_to_be_no_loss_per_token(tmp_path):
    log = read(tmp_path, "Step 1 | Validation bpb: 1.0\nstep 1 | loss: 3.0\nStep 2 | Validation bpb: 0.9\n")
    assert points(log.find(VALIDATION, LOSS)) == [
        (1, pytest.approx(math.log(2))),
        (2, pytest.approx(0.9 * math.log(2))),
    ]
    assert "multiplied by ln 2; they are nats per byte, not per token" in log.notes[-1]


def test_a_line_of_names_that_are_not_known_is_no_log_without_numbers(tmp_path):
    with pytest.raises(UsageError, match="none of its numbers has a name that is known") as error:
        read(tmp_path, "step:1 - actor/pg_loss:0.01 - critic/rewards/mean:0.5\n")
    assert error.value.id == "log.no_loss"


@pytest.mark.parametrize(
    "line",
    [
        "step {0} | loss 2,{1} | lr 0,001\n",
        "Step: {0}, Loss: 2,{1}\n",
        "iter {0}: loss 2,{1}, time 35,78ms\n",  # nanoGPT's
        "{{'loss': '2,{1}', 'step': {0}}}\n",  # transformers'
        "epoch 0,5 step 1,00{0} train loss: 2,{1}\n",
    ],
)
@pytest.mark.parametrize("digits", ["5", "50", "500", "5000"])
def test_losses_with_decimal_commas(tmp_path, line, digits):
    log = read(tmp_path, "".join(line.format(step, digits) for step in range(1, 7)))
    assert {value for _, value in points(log.find(TRAIN, LOSS))} == {2.5}
    assert log.find(TRAIN, LOSS).steps[-1] == (1006 if "1,00" in line else 6)
    assert log.notes[0].startswith("losses are written with a decimal comma")
    text = "".join(f"it {step} Q loss=2,{digits}\n" for step in range(6))
    named = read(tmp_path, text, {"step": "it", "loss": "loss="})
    assert {value for _, value in points(named.find(TRAIN, LOSS))} == {2.5}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("step 1 | loss 1,234.5\nstep 2 | loss 987.5\n", [1234.5, 987.5]),
        ("step 1 | loss 1,234\nstep 2 | loss 987\n", [1234, 987]),  # not all have one, and both may part thousands
        ("step 1 | loss 2.5 | loss scale: 65,536\nstep 2 | loss 2.25 | loss scale: 65,536\n", [2.5, 2.25]),
        ("step 1 | loss 1,234,567\nstep 2 | loss 1,234,566\n", [1234567, 1234566]),
        ("step 1 | loss 2, 3,4\nstep 2 | loss 3,\n", [2, 3]),
    ],
)
def test_losses_with_other_commas(tmp_path, text, values):
    log = read(tmp_path, text)
    assert log.find(TRAIN, LOSS).values.tolist() == values
    assert not any("decimal comma" in note for note in log.notes)
