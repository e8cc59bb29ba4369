"""Which comparison two runs get: token by token, or through bytes; and which runs get none."""

import numpy as np
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, tempered_logits, write_drawn

from lossprobe.analysis.compare.compare import compare
from lossprobe.errors import NotComparableError, UsageError
from lossprobe.run.reader import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    rng = np.random.default_rng(8)
    logits = draw_logits(rng, 800, 31)
    targets, documents = draw_targets(rng, logits), document_numbers(rng, 800, 9)
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_drawn(folder / name, z, targets, documents, name=name).run
        for name, z in (("old", logits), ("new", tempered_logits(logits, 0.5)))
    ]


def changed(run: Run, group: str, key: str, value: object) -> Run:
    settings = run.manifest["settings"]
    return Run(run.path, run.manifest | {"settings": settings | {group: settings[group] | {key: value}}})


def test_the_same_tokens_are_paired(runs):
    result = compare(*runs, by="context", top=3)
    assert result.byte_comparison is None
    assert result.divergence is None
    assert result.token_comparison.difference.mean_difference_nats > 0.1
    assert result.changes.by == "context"
    assert result.changes.mean_difference_nats == pytest.approx(
        result.token_comparison.difference.mean_difference_nats, rel=1e-12
    )
    assert "new is worse" in result.finding
    assert set(result.table.columns) == {"measure", "value", "low", "high", "unit"}
    assert len(result.notes) == len(set(result.notes))


def test_other_tokenizers_go_through_bytes(runs):
    other = changed(runs[1], "tokenizer", "sha256", "other")
    vars(other)["tokens_sha256"] = "of other tokens"
    result = compare(runs[0], other)
    assert result.token_comparison is None
    assert result.changes is None
    paired = compare(*runs).token_comparison
    nats = (
        result.byte_comparison.difference.difference_bits_per_byte
        * result.byte_comparison.counts.bytes_compared
        * np.log(2.0)
    )
    assert nats == pytest.approx(paired.difference.mean_difference_nats * paired.counts.tokens, rel=1e-9)


@pytest.mark.parametrize(("group", "key"), [("windows", "context"), ("windows", "stride"), ("windows", "bos_id")])
def test_other_windows_are_refused_unless_allowed(runs, group, key):
    other = changed(runs[1], group, key, 7)
    with pytest.raises(NotComparableError, match="differ in"):
        compare(runs[0], other)
    result = compare(runs[0], other, allow_different=True)
    assert (result.token_comparison is None) == (key == "bos_id"), "a BOS moves the tokens; bytes still pair"


def test_other_texts_are_never_compared(runs):
    other = changed(runs[1], "text", "sha256", "another")
    for allow in (False, True):
        with pytest.raises(NotComparableError):
            compare(runs[0], other, allow_different=allow)
        with pytest.raises(NotComparableError):
            compare(runs[0], changed(other, "tokenizer", "sha256", "x"), allow_different=allow)


def test_a_field_that_is_not_there_is_refused(runs):
    with pytest.raises(UsageError, match="nothing"):
        compare(*runs, by="nothing")
