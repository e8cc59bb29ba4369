"""Adapters on the command line: named with their base, beside it, and what `inspect` and headings say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from adapter_files import configure, make_adapter
from checkpoint import builders
from matplotlib.figure import Figure

from lossprobe.checkpoint.adapters import sharing
from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.families import huggingface
from lossprobe.cli.main import run
from lossprobe.passes.divergence import measure_divergence
from lossprobe.text.documents import open_text

TEXT = "the cat sat on the mat. the cat ate the rat. " * 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a text, a base, and three adapters of which two name that base by a relative path."""
    root = tmp_path_factory.mktemp("adapters")
    built = builders.model("llama")
    builders.write_settings(builders.save(built, root / "base"))
    for number, name in enumerate(("one", "two", "lost")):
        folder = make_adapter(built, root / name, seed=number, target_modules=["q_proj", "v_proj"])
        configure(folder, base_model_name_or_path="org/base" if name == "lost" else "base")
    (root / "text.txt").write_text(TEXT)
    return root


@pytest.fixture
def work(made, tmp_path, monkeypatch):
    folder = shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(folder)
    return folder


def runs():
    return sorted(path.name for path in Path(".lossprobe").iterdir() if (path / "run.json").is_file())


def test_an_adapter_is_the_same_checkpoint_however_its_base_is_named(work, capsys):
    for command in (["one"], ["one", "--base", "base"], ["base", "--adapter", "one"]):
        checkpoint, *options = command
        assert run(["score", checkpoint, "text.txt", *options, "--quiet"]) == 0
    assert len(runs()) == 1
    assert run(["score", "one", "text.txt", "--merge", "--quiet"]) == 0
    assert {name.partition("-text")[0] for name in runs()} == {"one", "one-merged"}
    capsys.readouterr()
    assert run(["tokens", "--table"]) == 0
    assert "tokens: one merged (LoRA of rank 4 on base) on text" in capsys.readouterr().out


@pytest.mark.thorough
def test_three_adapters_beside_their_base_cost_one_load(work, monkeypatch, capsys):
    loads = []
    real = sharing.load_folder
    monkeypatch.setattr(sharing, "load_folder", lambda *given: loads.append(given) or real(*given))
    adapters = [word for name in ("one", "two", "lost") for word in ("--adapter", name)]
    assert run(["calibration", "base", *adapters, "text.txt", "--csv", "-"]) == 0
    assert (len(loads), len(runs())) == (1, 4)
    assert run(["calibration", "base", "one", "two", "text.txt", "--csv", "-"]) == 0
    assert (len(loads), len(runs())) == (2, 4), "their base is named otherwise, and the runs are the same"


@pytest.mark.parametrize(
    ("sources", "heading"),
    [
        (["base", "one"], "compare: base, one (LoRA of rank 4 on base) on text"),
        (["base", "--adapter", "lost"], "compare: base, lost (LoRA of rank 4 on base) on text"),
        (["base", "one", "lost"], "compare: one (LoRA of rank 4 on base), lost (LoRA of rank 4 on base) on text"),
        (["base", "--adapter", "one", "--adapter", "two"], "compare: one (LoRA of rank 4 on base), two (LoRA"),
    ],
)
def test_compare_takes_a_base_and_adapters(work, capsys, sources, heading):
    assert run(["compare", *sources[:1], *sources[1:], "text.txt", "--table"]) == 0
    assert heading in capsys.readouterr().out


def test_base_and_adapter_can_be_run_together(work, capsys):
    assert run(["compare", "--kl", "base", "one", "text.txt", "--base", "base", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["divergence"]["mean_kl_nats"] > 0.001


AUDIT = """\
schema = 1
[model]
checkpoint = "one"
[reference]
checkpoint = "base"
[data.text]
path = "text.txt"
[[check]]
id = "distance"
metric = "mean_kl_nats"
max = 9.0
"""


def test_an_audit_of_an_adapter_beside_its_base_costs_one_load(work, monkeypatch, capsys):
    loads = []
    real = sharing.load_folder
    monkeypatch.setattr(sharing, "load_folder", lambda *given: loads.append(given) or real(*given))
    monkeypatch.setattr(huggingface, "load_huggingface", lambda *given: pytest.fail(f"{given} was loaded by itself"))
    Path("lossprobe.toml").write_text(AUDIT)
    assert run(["audit", "--json", "--quiet"]) == 0
    (measured,) = json.loads(capsys.readouterr().out)["checks"]
    assert len(loads) == 1
    monkeypatch.undo()
    monkeypatch.chdir(work)
    shutil.rmtree(".lossprobe")
    apart = [open_checkpoint(path) for path in ("base", "one")]
    found = measure_divergence(*apart, open_text(["text.txt"]))
    assert measured["measured"] == pytest.approx(found.mean_kl_nats, rel=1e-6)
    assert found.mean_kl_nats > 0.001


def test_inspect_says_what_an_adapter_is(work, capsys):
    assert run(["inspect", "base", "--adapter", "lost"]) == 0
    out = re.sub(" +", " ", capsys.readouterr().out)
    assert "adapter LoRA of rank 4, scaling 2, 896 parameters, run beside the base's weights\n" in out
    assert "changes q_proj, v_proj in 4 layers\nbase base (adapter_config.json names org/base)\n" in out
    assert run(["inspect", "one", "--merge", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["adapter"]["merged"]) == ("one merged", True)


def test_selfcheck_shows_merged_against_unmerged(work, capsys):
    assert run(["selfcheck", "one", "text.txt", "--json", "--quiet"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    (found,) = [row for row in rows if row["check"] == "adapter"]
    assert found["setting"] == "merged in place of beside the base"
    assert abs(found["difference_nats"]) < 1e-6
    assert found["tokens"] > 50


def test_the_heading_of_a_series_says_what_its_checkpoints_are(work, capsys):
    for step, name in ((10, "one"), (20, "two")):
        shutil.copytree(name, f"trained/checkpoint-{step}")
    assert run(["series", "trained", "text.txt", "--table", "--quiet"]) == 0
    assert "series: 2 checkpoints (LoRA of rank 4 on base), step 10 to 20 on text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "headings", "said"),
    [
        (["compare", "base", "one"], 2, "one (LoRA of rank 4 on base)"),
        pytest.param(["tokens", "one"], 1, "one (LoRA of rank 4 on base) on text", marks=pytest.mark.thorough),
        pytest.param(["calibration", "base", "one", "two"], 2, "two (LoRA of rank 4 on base)",
                     marks=pytest.mark.thorough),
        pytest.param(["series", "base", "one"], 2, "one (LoRA of rank 4 on base)", marks=pytest.mark.thorough),
    ],
)  # fmt: skip
def test_the_heading_of_a_picture_says_once_what_its_models_are(work, monkeypatch, command, headings, said):
    told = []
    real = Figure.suptitle
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **how: told.append(text) or real(self, text, **how))
    assert run([*command, "text.txt", "--plot", "picture.png", "--quiet"]) == 0
    assert len(told) == headings
    assert " ".join(told[-1].split()).count(said) == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["score", "lost", "text.txt"], "names the base org/base, which is no folder here; nothing is downloaded"),
        (["score", "base", "text.txt", "--merge"], "and --merge is only for one"),
        (["score", "base", "text.txt", "--base", "base"], "and --base is only for one"),
        (["score", "base", "text.txt", "--adapter", "one", "--base", "base"], "both name a base"),
        (["score", "one", "text.txt", "--adapter", "two"], "name its base first"),
        (["score", "base", "text.txt", "--adapter", "one", "--adapter", "two"], "score shows one model"),
        (["score", "base", "text.txt", "--adapter", "base"], "is no adapter"),
        (["score", "base", "text.txt", "--adapter", "none"], "none: does not exist"),
        (["tokens", "--adapter", "one"], "name its base first"),
    ],
)
def test_options_that_do_not_fit_are_refused(work, capsys, command, said):
    assert run(command) == 2
    assert said in capsys.readouterr().err
    assert not Path(".lossprobe").exists()
