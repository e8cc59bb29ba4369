"""Which runs may stand side by side."""

import pytest
from fake_runs import words

from lossprobe.analysis.rows.same_tokens import differing, refuse_different, same_tokens
from lossprobe.errors import NotComparableError
from lossprobe.run.reader import Run

SETTINGS = {
    "text": {"sha256": "t1"},
    "tokenizer": {"sha256": "k1"},
    "windows": {"context": 8, "stride": 8, "bos_id": 0, "score_unknown": False},
    "checkpoint": {"sha256": "c1"},
}


@pytest.fixture
def with_settings(make_run):
    base = make_run([words("first_token", 1.0, 2.0)])

    def build(**changes) -> Run:
        settings = {group: dict(values) for group, values in SETTINGS.items()}
        for name, value in changes.items():
            group, _, key = name.partition("__")
            settings[group][key] = value
        return Run(base.path, base.manifest | {"settings": settings, "labels": {"checkpoint": "m", "text": "x"}})

    return build


@pytest.mark.parametrize(
    ("group", "key", "words"),
    [
        ("text", "sha256", "text"),
        ("tokenizer", "sha256", "tokenizer"),
        ("windows", "context", "context"),
        ("windows", "stride", "stride"),
        ("windows", "layout", "layout of the windows"),
        ("windows", "bos_id", "BOS"),
        ("windows", "own_bos_id", "second BOS"),
        ("windows", "score_unknown", "unknown tokens"),
    ],
)
def test_each_difference_is_refused_and_named(with_settings, group, key, words):
    runs = [with_settings(), with_settings(**{f"{group}__{key}": 77})]
    with pytest.raises(NotComparableError, match=f"differ in {words} .*77") as caught:
        refuse_different(runs)
    assert caught.value.exit_code == 12
    assert caught.value.id == "runs.different"
    assert ("`allow_different`" in caught.value.hint) == (group == "windows"), "only where it helps"


def test_other_weights_are_what_a_comparison_is_for(with_settings):
    runs = [with_settings(), with_settings(checkpoint__sha256="other")]
    refuse_different(runs)
    assert differing(*runs) == []
    assert same_tokens(runs)


def test_a_single_run_has_nothing_to_differ_from(with_settings):
    refuse_different([with_settings()])
    assert same_tokens([with_settings()])


@pytest.mark.parametrize(
    ("change", "paired"),
    [
        ({"windows__context": 4}, True),
        ({"windows__stride": 2}, True),
        ({"windows__bos_id": None}, False),
        ({"text__sha256": "t2"}, False),
        ({"tokenizer__sha256": "k2"}, False),
    ],
)
def test_windows_change_the_losses_but_not_the_tokens(with_settings, change, paired):
    assert same_tokens([with_settings(), with_settings(**change)]) is paired


def test_the_third_run_is_looked_at_too(with_settings):
    with pytest.raises(NotComparableError, match="text"):
        refuse_different([with_settings(), with_settings(), with_settings(text__sha256="t2")])
