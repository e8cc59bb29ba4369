"""How a logged number is read, how chance agreements are counted, and how rows are packed."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lossprobe.analysis.logged.recipe import Denominator, Recipe, RowSums, logged_loss
from lossprobe.analysis.logged.routing import RoutingRows
from lossprobe.analysis.options import ReconcileOptions
from lossprobe.analysis.reconcile.candidates import enumerate_recipes, sizes_of
from lossprobe.analysis.reconcile.feed import Balancing, Feed
from lossprobe.analysis.reconcile.logged_value import LoggedValue, find_logged, typed_value, value_of_log
from lossprobe.analysis.reconcile.match import expected_by_chance
from lossprobe.analysis.reconcile.programs import Mean
from lossprobe.analysis.reconcile.reconcile import reconcile_number
from lossprobe.analysis.reconcile.token_table import best_fit
from lossprobe.errors import UsageError
from lossprobe.logs.evaluation import find_logged_loss
from lossprobe.logs.trainer_state import read_logged_loss, step_of


def drawn_rows(count, seed=0):
    """Return rows whose sums are drawn."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(3, 60, count)
    loss = tokens * draw.gamma(9, 0.3, count)
    return RowSums(loss, tokens * 7.0, np.zeros(count), tokens, tokens + 1, np.zeros(count, np.int64))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("3.768", 3.7675, 3.7685), ("3.80", 3.795, 3.805), ("4", 3.5, 4.5), ("38e-1", 3.75, 3.85), (" 1_0 ", 9.5, 10.5)],
)
def test_the_digits_of_a_typed_number_are_its_band(text, low, high):
    found = typed_value(text)
    assert (found.smallest, found.largest) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize("text", ["0", "-3.7", "nan", "inf", "", "three", "3,768", "0.000", "1e999"])
def test_what_is_no_loss_is_refused(text):
    with pytest.raises(UsageError) as error:
        typed_value(text)
    assert error.value.id == "reconcile.logged"


def test_a_decimal_comma_is_refused_with_the_number_that_is_meant():
    with pytest.raises(UsageError) as caught:
        typed_value("3,768")
    assert caught.value.hint == "with a decimal point: 3.768"


def test_a_rounded_log_has_four_decimals_and_a_full_one_float_rounding():
    assert value_of_log(3.7683, "").width == pytest.approx(1e-4, rel=0.05)
    assert value_of_log(3.768300771713257, "").width == pytest.approx(2e-6 * 3.7683, rel=1e-3)


@pytest.mark.parametrize("shape", ["uniform", "normal", "lognormal"])
def test_chance_agreements_are_expected_as_often_as_they_happen(shape):
    """Numbers that have nothing to do with the values: the expected agreements are those that there are."""
    draw = np.random.default_rng(1)
    expected = found = 0.0
    for _ in range(200):
        values = np.exp(getattr(draw, shape)(size=800)) if shape == "uniform" else getattr(draw, shape)(size=800) + 5
        centre = draw.uniform(*np.quantile(values, [0.1, 0.9]))
        band = LoggedValue("", centre, centre - 0.01, centre + 0.01)
        expected += expected_by_chance(values, band)
        found += np.sum((values >= band.smallest) & (values <= band.largest))
    assert expected == pytest.approx(found, rel=0.15)


def test_a_true_recipe_stands_out_and_a_foreign_number_does_not():
    """With six decimals, over many texts: the true recipe is first, and a number at random is hardly ever explained."""
    draw = np.random.default_rng(2)
    first = explained = 0
    for seed in range(12):
        rows = drawn_rows(20, seed)
        size = int(draw.choice([2, 4, 8, 16]))
        true = logged_loss(rows, Recipe(size, Denominator.LABELS))
        result = reconcile_number([Feed(rows=rows)], typed_value(f"{true:.6f}"))
        first += f"to 5.9 (counts each row's first label); batches of {size}" in result.table["recipe"].iloc[0]
        foreign = typed_value(f"{true * draw.uniform(0.97, 1.03):.6f}")
        explained += reconcile_number([Feed(rows=rows)], foreign).verdict == "explained"
    assert first == 12
    assert explained <= 1


def test_every_recipe_has_the_value_of_its_formula():
    rows = drawn_rows(23)
    candidates = enumerate_recipes([Feed(rows=rows)], before_shift=False)
    block = candidates.blocks[0]
    for index in np.random.default_rng(3).choice(len(block.values), 60, replace=False).tolist():
        recipe = block.ways[block.way[index]].recipe
        from_formula = logged_loss(
            rows, Recipe(recipe.rows_per_batch, ranks=recipe.ranks, sharing=recipe.sharing,
                         smoothing=float(block.smoothing[index]))
        )  # fmt: skip
        scaled = (from_formula, math.exp(from_formula), from_formula / math.log(2))[block.scale[index]]
        assert block.values[index] == pytest.approx(scaled, rel=1e-12)


@pytest.mark.parametrize("without", [(), (0, 1, 2, 9, 22)])
def test_every_program_has_the_value_of_its_formula(without):
    """All denominators and ways in which ranks share a mean, of a text in which rows without a scored token stand."""
    rows = drawn_rows(23)
    for row in without:
        rows.loss_nats[row] = rows.uniform_loss_nats[row] = rows.tokens[row] = rows.labels[row] = 0
    checked = set()
    for block in enumerate_recipes([Feed(rows=rows)], before_shift=False).blocks:
        if block.program.mean is not Mean.ROWS:
            continue
        for index in np.random.default_rng(4).choice(len(block.values), 200, replace=False).tolist():
            recipe = replace(block.ways[block.way[index]].recipe, smoothing=float(block.smoothing[index]))
            from_formula = logged_loss(rows, recipe)
            scaled = (from_formula, math.exp(from_formula), from_formula / math.log(2))[block.scale[index]]
            assert block.values[index] == pytest.approx(scaled, rel=1e-11)
            checked.add((recipe.denominator, recipe.sharing))
    assert len(checked) >= 6


def test_sizes_of_batches():
    assert sizes_of(3) == [1, 2, 3]
    assert sizes_of(3000)[-6:] == [64, 128, 256, 512, 1024, 3000]


def test_rows_without_a_scored_token_are_dropped_by_the_trainer_and_count_as_zero_in_trl():
    tokens = np.array([4, 0, 6])
    rows = RowSums(np.array([8.0, 0, 6]), np.ones(3), np.zeros(3), tokens, tokens, tokens)
    for logged, words in (("1.500000", "transformers' Trainer, 5.10 on"), ("1.000000", "TRL's SFTTrainer")):
        assert (
            reconcile_number([Feed(rows=rows)], typed_value(logged)).table["recipe"].iloc[0] == f"{words}; batches of 1"
        )


def test_a_fitted_smoothing_is_told_as_a_fit():
    rows = drawn_rows(50)
    value = logged_loss(rows, Recipe(8, smoothing=0.137))
    result = reconcile_number([Feed(rows=rows)], typed_value(f"{value:.7f}"))
    assert result.verdict == "unexplained"
    assert any("label smoothing of 0.137 would" in note and "a fit" in note for note in result.notes)


def test_the_longest_rows_are_packed_first_and_a_thousand_at_a_time():
    assert best_fit(np.array([4, 7, 2, 3, 1]), 8).tolist() == [1, 0, 2, 1, 0]
    lengths = np.full(1001, 3)
    assert best_fit(lengths, 8)[-1] == 500


def state(folder, **content):
    """Write a trainer_state.json, as Python does."""
    folder.mkdir(exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps(content))
    return folder / "trainer_state.json"


HISTORY = [
    {"step": 10, "loss": math.nan}, {"step": 10, "eval_loss": 4.5}, {"step": 20, "eval_loss": 4.25},
    {"step": 20, "eval_loss": 4.0, "eval_other_loss": 3.0},
]  # fmt: skip


def test_a_log_gives_the_loss_of_the_step(tmp_path):
    log = state(tmp_path / "checkpoint-10", global_step=10, log_history=HISTORY)
    assert step_of(tmp_path / "checkpoint-10") == 10
    assert read_logged_loss(log, 10).value == 4.5
    assert read_logged_loss(log, 20).value == 4.0  # written again after a restart
    assert read_logged_loss(log, None, "eval_other_loss").step == 20
    assert step_of(tmp_path / "checkpoint-7") == 7
    assert step_of(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "step", "id_", "words"),
    [
        ({"log_history": HISTORY}, 15, "log.step", "no eval_loss at step 15"),
        ({"log_history": HISTORY}, None, "log.step", "2 steps"),
        ({"log_history": HISTORY[:1]}, 10, "log.no_evaluation", "no entry with eval_loss"),
        ({"log_history": []}, 10, "log.no_evaluation", "no entry"),
        ({"history": []}, 10, "log.unreadable", "no log_history"),
    ],
)
def test_a_log_without_the_loss_is_refused(tmp_path, content, step, id_, words):
    with pytest.raises(UsageError, match=words) as error:
        read_logged_loss(state(tmp_path, **content), step)
    assert error.value.id == id_


def test_a_loss_that_is_a_text_has_its_digits_or_is_no_number(tmp_path):
    path = state(tmp_path, log_history=[{"step": 3, "eval_loss": "3.70"}])
    found = read_logged_loss(path, None)
    assert (found.value, found.decimals) == (3.7, 2)
    value = find_logged(ReconcileOptions(log=path), tmp_path)
    assert (value.text, value.width) == ("3.70", pytest.approx(0.01, rel=1e-3))
    path = state(tmp_path, log_history=[{"step": 3, "eval_loss": "3,7"}])
    with pytest.raises(UsageError, match='eval_loss at step 3 is no number: "3,7"') as caught:
        read_logged_loss(path, None)
    assert caught.value.hint is None


def test_the_only_evaluation_is_meant_and_training_losses_are_none(tmp_path):
    path = state(tmp_path, log_history=[{"step": 3, "loss": 4.0}, {"step": 3, "eval_test_loss": 3.5}])
    assert read_logged_loss(path, 3).name == "eval_test_loss"
    path = state(tmp_path, log_history=[{"step": 3, "loss": 4.0}, {"step": 4, "train_loss": 4.0}])
    with pytest.raises(UsageError, match="no entry with eval_loss") as caught:
        read_logged_loss(path, 3)
    assert "training alone" in caught.value.hint


def test_the_step_of_the_best_model_is_known_by_number_or_by_name(tmp_path):
    for said in ({"best_global_step": 10}, {"best_model_checkpoint": "out/checkpoint-10"}):
        path = state(tmp_path, log_history=HISTORY, **said)
        assert read_logged_loss(path, 20).best_step == 10
        with pytest.raises(UsageError) as caught:
            read_logged_loss(path, None)
        assert caught.value.hint.endswith("10, 20; load_best_model_at_end puts back that of 10")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("eval_results.json", '{"epoch": 1.0, "eval_loss": 4.25, "eval_samples": 7, "perplexity": 70.1}'),
        ("trainer_log.jsonl", '{"current_steps": 9, "loss": 5.0}\n{"current_steps": 9, "eval_loss": 4.25}\n'),
        ("metrics.csv", "step,train/loss,eval/loss\n9,5.0,4.25\n10,4.9,\n"),
        ("out.log", "{'eval_loss': '4.25', 'eval_runtime': '0.1', 'epoch': '1'}\n"),
    ],
)
def test_other_logs_than_trainer_state(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    for path in (tmp_path / name, *([tmp_path] if "eval_results" not in name else [])):
        assert find_logged_loss(path, None, "eval_loss").value == 4.25
    with pytest.raises(UsageError, match=r"no entry with eval_other_loss|no training log"):
        find_logged_loss(tmp_path / name, None, "eval_other_loss")


def test_a_folder_stands_for_its_newest_log(tmp_path):
    for step in (10, 20):
        state(tmp_path / f"checkpoint-{step}", global_step=step, log_history=HISTORY[: 1 + step // 10])
    assert find_logged_loss(tmp_path, 10, "eval_loss").value == 4.5
    assert find_logged_loss(tmp_path / "checkpoint-20", 20, "eval_loss").value == 4.25


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"\xff{}", b"[" * 100_000, b'{"log_history": 1' + b"0" * 5000 + b"}"]
)
def test_a_file_that_is_no_log_is_refused(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(UsageError) as error:
        read_logged_loss(tmp_path / "x.json", None)
    assert error.value.id == "log.unreadable"


@pytest.mark.parametrize(("in_loss", "sharing", "program"), [(True, 2, "transformers' Trainer"), (False, 1, "TRL's")])
def test_the_load_balancing_loss_of_each_batch_is_tried(in_loss, sharing, program):
    """Trainer adds it if the configuration says so, and multiplies it by the ranks; TRL adds it in any case."""
    rows, draw = drawn_rows(22), np.random.default_rng(5)
    tokens = draw.integers(20, 80, 22)
    probability = draw.dirichlet(np.ones(4), 22) * tokens[:, None]
    slots = np.array([draw.multinomial(2 * count, [0.4, 0.3, 0.2, 0.1]) for count in tokens])
    feed = Feed(rows=rows, balancing=Balancing(RoutingRows(probability, slots, tokens), 0.05, in_loss))
    total = 0.0
    for start in range(0, 22, 4):
        batch = [row % 22 for row in range(start, start + 4)]
        other = [row % 22 for row in range(start - start // 4 % 2 * 4, start - start // 4 % 2 * 4 + 8)]
        nats, count = rows.loss_nats[batch].sum(), rows.tokens[batch].sum()
        own = 2 * nats / rows.tokens[other].sum() if sharing == 2 else nats / count
        routed = tokens[batch].sum()
        loss = 4 * sum(slots[batch].sum(0) / routed * probability[batch].sum(0) / routed)
        total += (own + sharing * 0.05 * loss) * min(4, 22 - start)
    first = reconcile_number([feed], typed_value(f"{total / 22:.7f}")).table.iloc[0]
    assert first["recipe"].startswith(program)
    assert first["recipe"].endswith("batches of 4; 2 processes; with the load-balancing loss")
