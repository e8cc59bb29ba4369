"""Rules on two models of other tokenizers: in bits per byte, against numpy and pandas on the stored columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted_runs import PIECES, Planted, frame, jackknife, run_of_halves

from lossprobe.analysis.compare.compare import compare
from lossprobe.analysis.findings import findings
from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.findings.findings import find_findings
from lossprobe.analysis.findings.words import percent

CLOSE = 1e-5  # columns are float32
FILES = [f"part-{number // 15}.jsonl" for number in range(60)]


@pytest.fixture(scope="module")
def text() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def first(text, tmp_path_factory):
    return text.run(tmp_path_factory.mktemp("first") / "one", name="one", sources=FILES)


def second(folder, text, first, more: np.ndarray | float):
    """Return the run of a model of another tokenizer, which loses some nats more than the first one on each word."""
    nats = np.maximum(0.01, frame(first)["loss"].to_numpy() + more)
    return run_of_halves(folder, text.targets, text.documents, nats, name="two", sources=FILES)


def difference(text, first, other) -> np.ndarray:
    """Return the difference of each document in bits, and its bytes: of all tokens but the unscored first ones."""
    sizes = np.array([len(PIECES[target]) for target in text.targets.tolist()])
    totals = [frame(run).groupby("document")["loss"].sum().to_numpy() / np.log(2) for run in (first, other)]
    return np.stack([totals[1] - totals[0], np.bincount(text.documents, sizes)])


def rate(bits_and_bytes: np.ndarray) -> tuple[float, float, float]:
    """Return bits per byte with the ends of the 95 % interval over documents."""
    numbers = pd.Series(np.arange(bits_and_bytes.shape[1]))
    bits, size = bits_and_bytes
    return jackknife(numbers, lambda kept: bits[kept].sum() / size[kept].sum())


def told(result) -> dict:
    return {each.id: each for each in findings_of("compare", result)}


def test_a_model_that_is_worse_and_the_same_the_other_way_round(text, first, tmp_path):
    other = second(tmp_path / "two", text, first, 0.1)
    value, low, high = rate(difference(text, first, other))
    found = told(compare(first, other, "class"))
    assert found.keys() == {"second-worse-by-byte"}
    worse = found["second-worse-by-byte"]
    assert [worse.value, *worse.value_interval] == pytest.approx([value, low, high], rel=1e-4)
    assert worse.sentence == f"two is worse than one: {value:+.4f} bits per byte [{low:+.4f}, {high:+.4f}]"
    better = told(compare(other, first, "class"))
    assert better.keys() == {"second-better-by-byte"}
    assert better["second-better-by-byte"].value == pytest.approx(-value, rel=1e-4)


def test_a_file_that_became_worse_while_the_whole_became_better(text, first, tmp_path):
    bad = text.documents // 15 == 2
    other = second(tmp_path / "two", text, first, np.where(bad, 0.2, -0.3))
    by_document, own = difference(text, first, other), np.arange(60) // 15 == 2
    value, low, high = rate(by_document[:, own])
    found = told(compare(first, other, "class"))
    assert found.keys() == {"second-better-by-byte", "worse-on-a-file"}
    file = found["worse-on-a-file"]
    assert file.about == "part-2.jsonl"
    assert [file.value, *file.value_interval] == pytest.approx([value, low, high], rel=1e-4)
    share = by_document[1, own].sum() / by_document[1].sum()
    assert file.sentence == (
        f"two is worse by {value:.3f} bits per byte [{low:.3f}, {high:.3f}] on file part-2.jsonl, {percent(share)} of "
        "the bytes, while better as a whole"
    )
    back = told(compare(other, first, "class"))["worse-on-a-file"]
    assert back.value == pytest.approx(value, rel=1e-4)
    assert back.sentence.startswith(f"one is better by {value:.3f} bits per byte [{low:.3f}, {high:.3f}] on file ")


def test_findings_of_models_of_other_tokenizers_that_are_as_good(text, first, tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "results_of", lambda run, once: iter(()))  # what is said of each alone
    noise = 0.3 * text.rng.standard_normal(len(text.targets))
    assert find_findings([first, second(tmp_path / "two", text, first, noise - noise.mean())]).findings == []
    (worse,) = find_findings([first, second(tmp_path / "three", text, first, noise + 0.1)]).findings
    assert worse.id == "second-worse-by-byte"
    assert worse.look == f"lossprobe compare --wide {first.path} {tmp_path / 'three'}"
