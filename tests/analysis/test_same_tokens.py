"""Which runs may stand side by side."""

import pytest
from fake_runs import BOS, words

from lossprobe.analysis.compare.compare import compare, refuse_other_windows
from lossprobe.analysis.rows.same_tokens import differing, refuse_different, same_tokens, tokenizer_note
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
    others = make_run([words("first_token", 1.0, 2.0, pieces=[b" a ", b"b", b" c"])])  # the same text in other tokens

    begun = make_run([words("special", "first_token", 1.0, 2.0, pieces=[BOS, b" a", b" b", b" c"])])

    def build(*, other_tokens=False, after_bos=False, **changes) -> Run:
        settings = {group: dict(values) for group, values in SETTINGS.items()}
        for name, value in changes.items():
            group, _, key = name.partition("__")
            settings[group][key] = value
        run = others if other_tokens else begun if after_bos else base
        return Run(run.path, run.manifest | {"settings": settings, "labels": {"checkpoint": "m", "text": "x"}})

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
    runs = [with_settings(), with_settings(other_tokens=group == "tokenizer", **{f"{group}__{key}": 77})]
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
        ({"tokenizer__sha256": "k2"}, True),
        ({"tokenizer__sha256": "k2", "other_tokens": True}, False),
        ({"tokenizer__sha256": "k2", "text__sha256": "t2"}, False),
    ],
)
def test_windows_change_the_losses_but_not_the_tokens(with_settings, change, paired):
    assert same_tokens([with_settings(), with_settings(**change)]) is paired


def test_the_third_run_is_looked_at_too(with_settings):
    with pytest.raises(NotComparableError, match="text"):
        refuse_different([with_settings(), with_settings(), with_settings(text__sha256="t2")])


def test_other_tokenizers_with_the_same_tokens_are_compared_and_told(with_settings):
    first, second = with_settings(), with_settings(tokenizer__sha256="k2")
    refuse_different([first, second])
    assert differing(first, second) == []
    note = "the tokenizers' files differ (k1 and k2), but every token of this text is the same, id and bytes"
    assert tokenizer_note(first, second) == note
    assert tokenizer_note(first, with_settings()) is None
    assert note in compare(first, second).notes
    assert compare(first, second).token_comparison is not None


def test_their_windows_must_be_equal_as_with_one_tokenizer(with_settings):
    first, second = with_settings(windows__bos_id=None), with_settings(tokenizer__sha256="k2", after_bos=True)
    with pytest.raises(NotComparableError, match=r"differ in BOS \(None and 0\)$") as caught:
        refuse_other_windows(first, second)
    assert caught.value.hint.startswith("score both with `bos` always or never; compare and calibration look")
    with pytest.raises(NotComparableError, match=r"differ in context \(8 and 4\)$"):
        refuse_other_windows(with_settings(), with_settings(tokenizer__sha256="k2", windows__context=4))
    other = with_settings(tokenizer__sha256="k2", windows__context=4, other_tokens=True)
    refuse_other_windows(with_settings(), other)  # compared by bytes


def test_runs_of_one_model_are_named_with_their_texts(make_run):
    one, other = (make_run([words("first_token", 1.0)], name="m", text_name=text) for text in ("kto", "dpo"))
    other = Run(other.path, {**other.manifest, "settings": {**other.manifest["settings"], "text": {"sha256": "other"}}})
    with pytest.raises(NotComparableError, match=r"^m on kto and m on dpo differ in text \(") as refused:
        refuse_different([one, other])
    assert refused.value.id == "runs.different"
