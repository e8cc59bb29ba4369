"""Numbers that trainers logged for small models, each explained by the recipe that gave it.

Recorded as those of `test_logged_goldens`: transformers 4.57 to 5.23, accelerate 1.15.0 and TRL 1.16.0.
"""

import pytest
from logged_models import TEXTS, chat_tokenizer, rows, saved, small_llama, without_weights, word_tokenizer

from lossprobe.analysis.reconcile.logged_value import typed_value, value_of_log
from lossprobe.passes.reconcile import reconcile
from lossprobe.text.documents import StringSource

NEW, OLD = "transformers' Trainer, 5.10 on", "transformers' Trainer to 5.9 (counts each row's first label)"
WHOLE = "one batch of all 7 rows"
TRL = "TRL's SFTTrainer; an EOS after each text"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The three models, each with its texts."""
    words, chat = word_tokenizer(), chat_tokenizer()
    models = {
        "zero": (without_weights(small_llama(61)), words, rows()),
        "real": (small_llama(61), words, rows()),
        "chat": (small_llama(len(chat)), chat, TEXTS),
    }
    return {
        name: (saved(tmp_path_factory.mktemp(name), model, tokenizer), StringSource(texts))
        for name, (model, tokenizer, texts) in models.items()
    }


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory):
    """Keep the runs of all tests in one folder, so that each pass is made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        yield


@pytest.mark.parametrize(
    ("name", "logged", "recipe"),
    [
        ("zero", "4.110874", f"{NEW}; {WHOLE}"),
        ("zero", "3.768301", f"{OLD}; {WHOLE}"),
        ("zero", "3.768", f"{OLD}; {WHOLE}"),
        ("zero", "3.741581", f"{OLD}; batches of 3"),
        ("zero", "4.208752", f"{NEW}; batches of 2; 2 processes"),
        ("zero", "4.350131", f"{NEW}; batches of 4; 2 processes"),
        ("real", "4.218382", f"{NEW}; batches of 1"),
        ("real", "4.323907", f"{NEW}; batches of 2"),
        ("real", "4.339776", f"{NEW}; batches of 3"),
        ("real", "4.336402", f"{NEW}; {WHOLE}"),
        ("real", "4.323216", f"{NEW}; batches of 2; label smoothing 0.1"),
        ("real", "4.337300", f"{NEW}; batches of 3; label smoothing 0.1"),
        ("real", "4.448491", f"{NEW}; batches of 1; 2 processes"),
        ("real", "4.402462", f"{NEW}; batches of 2; 2 processes"),
        ("chat", "6.158716", f"{TRL}; batches of 1"),
        ("chat", "6.107604", f"{TRL}; batches of 3"),
        ("chat", "6.117225", f"{TRL}; {WHOLE}"),
        ("chat", "6.095718", f"{TRL}; batches of 3; label smoothing 0.1"),
        ("chat", "6.082201", f"{TRL}; rows cut at 4 tokens; {WHOLE}"),
        ("chat", "6.232433", f"{TRL}; packed into rows of 16 (bfd); batches of 1"),
        ("chat", "6.136908", f"{TRL}; packed into rows of 16 (bfd); batches of 2"),
    ],
)
def test_the_recipe_that_gave_a_number_comes_first(name, logged, recipe, checkpoints):
    _, result = reconcile(typed_value(logged), *checkpoints[name])
    assert result.verdict == "explained"
    assert result.table["recipe"].iloc[0] == recipe
    assert recipe in result.finding


def test_other_programs_that_give_the_same_number_are_named(checkpoints):
    first = reconcile(typed_value("4.336402"), *checkpoints["real"])[1].table.iloc[0]
    assert "mean over all tokens" in first["same_number"].split(" | ")


def test_few_digits_agree_by_chance(checkpoints):
    result = reconcile(typed_value("4.35"), *checkpoints["real"])[1]
    assert result.verdict == "by chance"
    assert result.chance == pytest.approx(result.agreeing, rel=0.3)
    assert "may be chance" in result.finding


def test_a_value_of_a_log_has_all_its_digits(checkpoints):
    result = reconcile(value_of_log(4.323215961456299, "eval_loss at step 30"), *checkpoints["real"])[1]
    assert result.finding.startswith("eval_loss at step 30 4.323215961456299 is most likely: ")


def test_a_number_that_no_recipe_gives_has_its_nearest(checkpoints):
    result = reconcile(typed_value("5.123"), *checkpoints["real"])[1]
    assert result.verdict == "unexplained"
    assert not result.table["agrees"].any()
    assert "nearest" in result.finding
    assert "rows shuffled" in result.notes[-1]
