"""What a command does once however many passes it makes: open a checkpoint, hash a document, tokenize a document."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from bundled import CHECKPOINT, EXAMPLES

from lossprobe.checkpoint import detect
from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer
from lossprobe.cli.main import run
from lossprobe.passes import known_text
from lossprobe.text.fingerprint import Fingerprint

SMOOTHED = EXAMPLES / "jargon-smoothed"


@dataclass
class Counts:
    """How often each checkpoint was opened, each text hashed, each text tokenized by the same rules."""

    opened: Counter[str] = field(default_factory=Counter)
    hashed: Counter[str] = field(default_factory=Counter)
    tokenized: Counter[tuple[bytes, str]] = field(default_factory=Counter)


@pytest.fixture
def counts(monkeypatch, tmp_path) -> Counts:
    """A working folder of its own, in which everything is counted."""
    monkeypatch.chdir(tmp_path)
    counted = Counts()

    def watch(home: object, name: str, note: Callable[..., None]) -> None:
        real = getattr(home, name)

        def watched(*arguments):
            note(*arguments)
            return real(*arguments)

        monkeypatch.setattr(home, name, watched)

    watch(detect, "open_checkpoint", lambda path, _: counted.opened.update([Path(path).name]))
    watch(Fingerprint, "add", lambda _, document: counted.hashed.update([document.text]))
    tokenized = counted.tokenized
    watch(BackendTokenizer, "encode", lambda its, text: tokenized.update([(its.canonical, text)]))
    watch(BackendTokenizer, "encode_all", lambda its, texts: tokenized.update((its.canonical, each) for each in texts))
    return counted


def write_texts(name: str, first: int, count: int) -> str:
    """Write some entries of the bundled text, the last one with an end of line, and return the file."""
    records = [json.loads(line) for line in (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines()]
    chosen = records[first : first + count]
    chosen[-1]["text"] += "\n"
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in chosen), "utf-8")
    return name


def test_gap(counts):
    train, validation = write_texts("train.jsonl", 0, 12), write_texts("valid.jsonl", 12, 8)
    assert run(["gap", str(CHECKPOINT), train, validation, "--context", "64", "-q", "--csv"]) == 0
    assert counts.opened == {"jargon-plain": 1}
    assert set(counts.hashed.values()) == set(counts.tokenized.values()) == {1}
    assert len(counts.hashed) == 20


def test_compare_in_one_pass_of_both(counts):
    text = write_texts("text.jsonl", 0, 8)
    assert run(["compare", str(CHECKPOINT), str(SMOOTHED), text, "--kl", "--context", "64", "-q", "--csv"]) == 0
    assert counts.opened == {"jargon-plain": 1, "jargon-smoothed": 1}
    assert set(counts.hashed.values()) == set(counts.tokenized.values()) == {1}
    assert len(counts.hashed) == 8


def test_a_checkpoint_and_its_desmoothed_twin(counts):
    text = write_texts("text.jsonl", 0, 8)
    assert run(["calibration", str(SMOOTHED), text, "--desmooth", "0.1", "--context", "64", "-q", "--csv"]) == 0
    assert counts.opened == {"jargon-smoothed": 1}
    assert set(counts.hashed.values()) == set(counts.tokenized.values()) == {1}


@pytest.mark.parametrize("documents", [1, 3])
def test_all_protocols(counts, documents):
    text = write_texts("text.jsonl", 0, documents)
    options = ["--protocol", "all", "--context", "32", "-q", "--csv"]
    assert run(["perplexity", str(CHECKPOINT), text, *options]) == 0
    assert counts.opened == {"jargon-plain": 1}
    assert set(counts.hashed.values()) == {1}
    assert set(counts.tokenized.values()) == {1}
    joined = 1 if documents > 1 else 0
    assert len({text for _, text in counts.tokenized}) == 2 * documents + 1 + joined, "alone, ended as in TRL, joined"


@pytest.mark.parametrize("how", ["--stop-early", "--no-stop-early"])
def test_an_audit(counts, how):
    write_texts("text.jsonl", 0, 60)
    Path("lossprobe.toml").write_text(
        f"schema = 1\n[model]\ncheckpoint = {json.dumps(str(CHECKPOINT))}\n[eval]\ncontext = 32\n"
        '[data.text]\npath = "text.jsonl"\n[[check]]\nid = "nll"\nmetric = "nll"\nmax = 9.0\n'
    )
    assert run(["audit", how, "-q", "--report", "json:audit.json"]) == 0
    assert counts.opened == {"jargon-plain": 1}
    assert set(counts.hashed.values()) == set(counts.tokenized.values()) == {1}
    (text,) = json.loads(Path("audit.json").read_text())["texts"]
    assert (text["scored_share"] < 1) == (how == "--stop-early")
    assert len(counts.tokenized) == round(60 * text["scored_share"])


REPORTS = ["json:audit.json", "junit:audit.xml", "markdown:audit.md"]


def audit(*options: str) -> dict[str, bytes]:
    """Audit, and return the reports."""
    run(["audit", "-q", *(word for report in REPORTS for word in ("--report", report)), *options])
    return {report: Path(report.partition(":")[2]).read_bytes() for report in REPORTS}


def test_an_audit_of_what_is_stored_loads_no_model_and_says_the_same(counts):
    for name, first in (("one", 0), ("two", 8)):
        write_texts(f"{name}.jsonl", first, 8)
    checks = "".join(
        f'[data.{name}]\npath = "{name}.jsonl"\n[[check]]\nid = "{name}"\ndata = "{name}"\nmetric = "nll"\n{limit}\n'
        for name, limit in (("one", "max_increase = 0.01"), ("two", "max = 1.0"))
    )
    Path("lossprobe.toml").write_text(
        f"schema = 1\n[model]\ncheckpoint = {json.dumps(str(CHECKPOINT))}\n[baseline]\npath = 'base'\n"
        f"[eval]\ncontext = 32\n{checks}"
    )
    assert run(["baseline", "update", "--force", "-q"]) == 0
    other = ["--checkpoint", str(SMOOTHED)]
    own, others = audit(), audit(*other)
    assert own != others
    assert counts.opened == {"jargon-plain": 1, "jargon-smoothed": 1}
    assert (audit(), audit(*other)) == (own, others)
    assert run(["baseline", "check"]) == run(["baseline", "update", "--force", "-q"]) == 0
    assert audit(*other) == others
    assert counts.opened == {"jargon-plain": 1, "jargon-smoothed": 1}, "no more than before"
    for path in Path(".lossprobe").glob("*-two-*"):
        path.rename(path.with_name("elsewhere"))
        break
    assert (audit(), audit(*other)) == (own, others)
    assert counts.opened.total() == 3, "one run was gone, and its checkpoint is opened for it alone"


def test_what_does_not_fit_into_memory_is_read_hashed_and_tokenized_again_to_the_same_numbers(counts, monkeypatch):
    text = write_texts("text.jsonl", 0, 4)
    arguments = ["perplexity", str(CHECKPOINT), text, "--protocol", "all", "--context", "32", "-q"]
    assert run([*arguments, "--csv", "kept.csv"]) == 0
    Path(".lossprobe").rename("first")
    monkeypatch.setattr(known_text, "KEPT_TEXT_BYTES", 1000)
    monkeypatch.setattr(known_text, "KEPT_TOKEN_BYTES", 1000)
    assert run([*arguments, "--csv", "again.csv"]) == 0
    assert Path("again.csv").read_bytes() == Path("kept.csv").read_bytes()
    assert min(counts.tokenized.values()) > 1
    assert np.all([each > 2 for each in counts.hashed.values()])
    first = {folder.name: (folder / "run.json").read_bytes() for folder in Path("first").glob("*-*")}
    assert {folder.name: (folder / "run.json").read_bytes() for folder in Path(".lossprobe").glob("*-*")} == first


@pytest.mark.thorough
@pytest.mark.parametrize("protocol", ["all", "evaluate", "llama.cpp"])
def test_what_another_tool_would_say_is_found_without_a_model(counts, protocol, capsys):
    text = write_texts("text.jsonl", 0, 2)
    records = [json.loads(line) for line in Path(text).read_text("utf-8").splitlines()]
    Path(text).write_text("".join(json.dumps({"text": each["text"][:600]}) + "\n" for each in records), "utf-8")
    arguments = ["perplexity", str(CHECKPOINT), text, "--protocol", protocol, "--context"]
    said = []
    for context in ("32", "256", "32", "256"):  # some tools refuse the text with the second one
        code = run([*arguments, context, f"--csv={context}-{len(said)}.csv"])
        said.append((code, re.sub("[0-9]+-[0-9].csv", "", capsys.readouterr().err)))
        if len(said) == 2:
            assert counts.opened.total() == (2 if said[0][0] == 0 else 0)
            counts.opened.clear()
    if protocol == "all":
        assert "llama.cpp needs at least" in Path("256-1.csv").read_text("utf-8")
    assert (said[0][0], said[1][0]) == ((0, 0) if protocol != "llama.cpp" else (0, 4))
    assert [each[1].replace("stored", "already scored, reusing") for each in said[:2]] == [each[1] for each in said[2:]]
    assert [each[0] for each in said[:2]] == [each[0] for each in said[2:]]
    assert counts.opened.total() == (1 if protocol == "llama.cpp" else 0), "for the message of the error"
    for before, after in (("32-0", "32-2"), ("256-1", "256-3")):
        if Path(f"{before}.csv").exists():
            assert Path(f"{before}.csv").read_bytes() == Path(f"{after}.csv").read_bytes()
