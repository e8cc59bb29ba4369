"""No command writes over what it reads: the checkpoint's files, its tokenizer's, texts; by any name that they have."""

import json
import os
import shutil
from pathlib import Path

import pytest
from bundled import CHECKPOINT, EXAMPLES
from nanogpt_files import write_nanogpt

from lossprobe.cli.inputs import PROTECTED_NAMES, is_same, protect_files, protect_folder, protect_texts
from lossprobe.cli.main import run
from lossprobe.errors import UsageError
from lossprobe.run.inputs import read_inputs, stored_inputs
from lossprobe.run.reader import latest_run

AUDIT = """\
schema = 1
[model]
checkpoint = "ckpt.pt"
[data.text]
path = "data.txt"
[baseline]
path = "{baseline}"
[[check]]
id = "loss"
metric = "nll"
max = 100.0
"""
CHANGE = """
[[check]]
id = "change"
metric = "nll"
max_increase = 100.0
"""
TEXT = "a small text of lower case letters and blanks\n" * 20
LINKS = ("soft", "hard")
FILES = ("ckpt.pt", "meta.pkl", "data.txt", "other.pt")
VIEWS = (
    ["tokens", "ckpt.pt", "data.txt"],
    ["positions", "ckpt.pt", "data.txt"],
    ["hardest", "ckpt.pt", "data.txt"],
    ["perplexity", "ckpt.pt", "data.txt"],
    ["perplexity", "ckpt.pt", "data.txt", "--protocol", "nanogpt"],
    ["perplexity", "ckpt.pt", "data.txt", "--protocol", "all"],
    ["calibration", "ckpt.pt", "data.txt"],
    ["calibration", "other.pt", "ckpt.pt", "data.txt"],
    ["objectives", "ckpt.pt", "data.txt"],
    ["compare", "ckpt.pt", "other.pt", "data.txt"],
    ["compare", "other.pt", "ckpt.pt", "data.txt"],
    ["gap", "ckpt.pt", "data.txt", "data.txt"],
    ["selfcheck", "ckpt.pt", "data.txt"],
)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with two nanoGPT checkpoints, their meta.pkl and a text; entered."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("ckpt.pt", "other.pt")):
        write_nanogpt(Path(name), number, TEXT)
    Path("data.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def names(folder) -> dict[str, tuple[str, ...]]:
    """Each file under its own name, by a relative detour, through a link, and as a hard link."""
    found = {}
    (folder / "deep").mkdir()
    for file in FILES:
        os.link(file, f"hard-{file}.csv")
        Path(f"soft-{file}.csv").symlink_to(file)
        os.link(file, f"hard-{file}.png")
        Path(f"soft-{file}.png").symlink_to(file)
        found[file] = (file, f"deep/../{file}", *(f"{kind}-{file}{end}" for end in (".csv", ".png") for kind in LINKS))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {file: (folder / file).read_bytes() for file in FILES}


@pytest.mark.parametrize("view", VIEWS, ids=" ".join)
def test_a_view_refuses_its_inputs_before_anything_is_scored(folder, names, capsys, view):
    before = contents(folder)
    first = view.index("ckpt.pt")
    options = ("--csv", "--plot") if "nanogpt" not in view else ("--csv",)
    for option in options:
        for file in ("ckpt.pt", "meta.pkl", "data.txt"):
            # The other names are one question for all views: the first one is asked it with all of them.
            asked = names[file] if view == VIEWS[0] else (file, f"hard-{file}.png")
            for name in asked:
                if option == "--plot" and not name.endswith(".png"):
                    continue  # refused already: no picture is called so
                code = run([*view, f"{option}={name}"])
                error = capsys.readouterr().err
                assert (code, error.partition("]")[0]) == (2, "lossprobe: error[output.is_input"), (name, error)
                assert name in error
    assert contents(folder) == before
    assert first > 1 or not list(folder.glob(".lossprobe/*/run.json"))


@pytest.mark.parametrize("name", ["ckpt.pt", "hard-ckpt.pt.csv", "meta.pkl", "hard-meta.pkl.csv", "hard-data.txt.csv"])
def test_a_stored_run_knows_its_inputs(folder, names, capsys, name):
    assert run(["score", "ckpt.pt", "data.txt", "-q"]) == 0
    before = contents(folder)
    stored = str(latest_run(folder).path)
    capsys.readouterr()
    for source in ([], [stored]):
        assert run(["perplexity", *source, f"--csv={name}"]) == 2
        assert "lossprobe: error[output.is_input]" in capsys.readouterr().err
    assert contents(folder) == before
    manifest = folder / stored / "run.json"
    content = json.loads(manifest.read_text())
    assert content.pop("inputs") == [f"../../{file}" for file in ("ckpt.pt", "meta.pkl")], "the same in any folder"
    del content["sha256"]  # as an older version left it
    manifest.write_text(json.dumps(content))
    assert run(["perplexity", stored, "--csv=out.csv"]) == 0, "a run of an older version says nothing of its inputs"
    assert run(["perplexity", stored, "--csv=ckpt.pt"]) == 2, "and a file of weights is known by its name then"
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["a\0b", "a\0/config.json", "\ud800"])
def test_a_name_that_no_file_can_have_is_no_input(folder, capsys, name):
    assert run(["score", "ckpt.pt", "data.txt", "-q"]) == 0
    stored = latest_run(folder).path
    content = json.loads((stored / "run.json").read_text())
    content["inputs"].insert(0, name)
    del content["sha256"]  # as an older version left it
    (stored / "run.json").write_text(json.dumps(content))
    assert run(["perplexity", str(stored), "--csv=out.csv"]) == 0, capsys.readouterr().err
    assert run(["perplexity", str(stored), "--csv=ckpt.pt"]) == 2
    assert "lossprobe: error[output.is_input]" in capsys.readouterr().err


@pytest.mark.parametrize("table", ["model", "data.text", "baseline"])
def test_a_path_of_an_audit_that_no_file_can_have_is_refused(folder, capsys, table):
    line = AUDIT[AUDIT.index(f"[{table}]") :].splitlines()[1]
    Path("lossprobe.toml").write_text(AUDIT.replace(line, f'{line.partition(" ")[0]} = "a\\u0000b"'))
    for command in (["audit"], ["baseline", "update"]):
        assert run([*command, "-q"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("lossprobe: error[audit.value]: lossprobe.toml: line ")
        assert f"in [{table}]: must be a path" in error


def test_a_tokenizer_that_was_named_is_an_input(folder, capsys):
    (folder / "apart").mkdir()
    Path("meta.pkl").rename("apart/characters.data")
    os.link("apart/characters.data", "hard.csv")
    before = Path("hard.csv").read_bytes()
    for name in ("apart/characters.data", "hard.csv"):
        arguments = ["perplexity", "ckpt.pt", "data.txt", "--tokenizer", "apart/characters.data", f"--csv={name}"]
        assert run(arguments) == 2
        assert "lossprobe: error[output.is_input]" in capsys.readouterr().err
    assert Path("apart/characters.data").read_bytes() == before
    assert run(["score", "ckpt.pt", "data.txt", "--tokenizer", "apart/characters.data", "-o", "apart"]) == 2
    wanted = "lossprobe: error[output.inside_checkpoint]: apart: holds characters.data"
    assert wanted in capsys.readouterr().err


def test_a_run_is_not_put_where_a_checkpoint_lies(folder, capsys):
    (folder / "out").mkdir()
    for file in ("ckpt.pt", "meta.pkl"):
        Path(file).rename(f"out/{file}")
    before = sorted(Path("out").iterdir())
    for output in ("out", "out/ckpt.pt"):
        assert run(["score", "out/ckpt.pt", "data.txt", "-o", output]) in (2, 6)
        assert "lossprobe: error[output." in capsys.readouterr().err
    assert sorted(Path("out").iterdir()) == before


@pytest.mark.parametrize("name", ["ckpt.pt", "meta.pkl", "data.txt", "soft-meta.pkl.csv", "hard-meta.pkl.csv"])
def test_reports_of_an_audit(folder, names, capsys, monkeypatch, name):
    Path("lossprobe.toml").write_text(AUDIT.format(baseline="base"))
    before = contents(folder)
    for kind in ("json", "junit", "markdown"):
        assert run(["audit", "--report", f"{kind}:{name}", "-q"]) in (2, 6)
        assert "lossprobe: error[output." in capsys.readouterr().err
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", name)
    assert run(["audit", "-q"]) == 2
    assert "lossprobe: error[output.is_input]" in capsys.readouterr().err
    assert contents(folder) == before
    assert not list(folder.glob(".lossprobe/*/run.json"))


def test_nothing_is_written_into_the_folder_of_a_model(folder, capsys):
    shutil.copytree(CHECKPOINT, "model")
    Path("store").mkdir()
    Path("model/model.safetensors").rename("store/weights")
    Path("model/model.safetensors").symlink_to("../store/weights")
    os.link("model/tokenizer.json", "hard.csv")
    before = {path: path.read_bytes() for folder in ("model", "store") for path in Path(folder).iterdir()}
    Path("lossprobe.toml").write_text(AUDIT.format(baseline="model/base").replace("ckpt.pt", "model") + CHANGE)
    refused = (
        ["perplexity", "model", "data.txt", "--csv=model/x.csv"],
        ["perplexity", "model", "data.txt", "--csv=model/deep/x.csv"],
        ["perplexity", "model", "data.txt", "--csv=model/config.json"],
        ["perplexity", "model", "data.txt", "--csv=store/weights"],
        ["perplexity", "model", "data.txt", "--csv=hard.csv"],
        ["score", "model", "data.txt", "-o", "model/run"],
        ["audit", "--report", "json:hard.csv"],
        ["baseline", "update"],
    )
    for arguments in refused:
        assert run([*arguments, "-q"]) == 2, arguments
        assert capsys.readouterr().err.startswith(
            ("lossprobe: error[output.i", "lossprobe: error[audit.baseline_place")
        )
    assert {path: path.read_bytes() for folder in ("model", "store") for path in Path(folder).iterdir()} == before
    assert not list(folder.glob(".lossprobe/*/run.json"))


@pytest.mark.parametrize("place", ["other/run.json", "other/x.csv", "other/tokens/part-00000.parquet", "base/x.csv"])
def test_nothing_is_written_into_another_run_or_a_baseline(folder, capsys, place):
    for name in ("mine", "other"):
        assert run(["score", "ckpt.pt", "data.txt", "-o", name, "-q"]) == 0
    shutil.copytree(EXAMPLES / "audit/baseline/jargon", "base")
    before = contents(folder)
    assert run(["positions", "mine", f"--csv={place}"]) == 2
    assert "lossprobe: error[output.inside_run]" in capsys.readouterr().err
    Path("plan.json").write_text("somebody's own")
    assert run(["positions", "mine", "--csv=plan.csv"]) == 0
    Path("plan.json").unlink()
    Path("plan.csv").unlink()
    assert contents(folder) == before


def test_one_file_is_known_by_all_its_names(tmp_path):
    (tmp_path / "a").write_text("x")
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to("a")
    (tmp_path / "d").symlink_to("nothing")
    assert is_same(tmp_path / "a", tmp_path / "b")
    assert is_same(tmp_path / "c", tmp_path / "b")
    assert is_same(tmp_path / "d", tmp_path / "nothing")
    assert not is_same(tmp_path / "a", tmp_path / "nothing")
    assert not is_same(tmp_path / "a", tmp_path / "d")
    for nameless in (Path("a\0b"), Path("\ud800")):
        assert not is_same(tmp_path / "a", nameless)
        assert not is_same(nameless, tmp_path / "nothing")


def refused(protect, *arguments) -> str:
    with pytest.raises(UsageError) as caught:
        protect(*arguments)
    return caught.value.id


@pytest.mark.parametrize("weights", ["a.safetensors", "model.safetensors.index.json", "pytorch_model-1.bin"])
def test_a_folder_with_a_configuration_and_weights_is_a_checkpoint(tmp_path, weights):
    destination = tmp_path / "x.csv"
    (tmp_path / weights).write_text("x")
    protect_files([destination], ())
    (tmp_path / "config.json").write_text("{}")
    assert refused(protect_files, [destination], ()) == "output.inside_checkpoint"
    (tmp_path / weights).unlink()
    protect_files([destination], ())
    read = [str(tmp_path / "config.json")]
    assert refused(protect_files, [tmp_path / "deep/x.csv"], read) == "output.inside_checkpoint"


@pytest.mark.parametrize("name", [*sorted(PROTECTED_NAMES), "a.gguf", "A.PT", "a.safetensors"])
def test_what_its_name_calls_a_part_of_a_checkpoint_is_not_replaced(tmp_path, name):
    protect_files([tmp_path / name], ())  # nothing stands there
    (tmp_path / name).write_text("x")
    assert refused(protect_files, [tmp_path / name], ()) == "output.is_input"
    (tmp_path / "link.csv").symlink_to(name)
    assert refused(protect_files, [tmp_path / "link.csv"], ()) == "output.is_input"


def test_a_folder_that_holds_what_was_read_is_no_place_for_a_run(tmp_path):
    (tmp_path / "home/deep").mkdir(parents=True)
    (tmp_path / "home/deep/weights").write_text("x")
    (tmp_path / "link").symlink_to("home")
    read = [str(tmp_path / "home/deep/weights")]
    for folder in ("home", "home/deep", "link"):
        assert refused(protect_folder, tmp_path / folder, read) == "output.inside_checkpoint"
    assert refused(protect_folder, tmp_path / "home/deep/weights", read) == "output.is_input"
    protect_folder(tmp_path / "home/deep/run", read)
    protect_folder(None, read)
    assert refused(protect_texts, [tmp_path / "link/deep/weights"], map(Path, read)) == "output.is_input"
    protect_texts([tmp_path / "other"], map(Path, read))


def test_inputs_are_kept_by_where_the_run_lies(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work/link").symlink_to(tmp_path / "far/weights")
    (tmp_path / "alias").symlink_to("work")
    files = [str(tmp_path / name) for name in ("work/ckpt.pt", "far/ckpt.pt", "alias/link", "work/deep/meta.pkl")]
    whole = [str(tmp_path / name) for name in ("work/ckpt.pt", "far/ckpt.pt", "work/link", "work/deep/meta.pkl")]
    for place, up in (("work/.lossprobe/run", "../.."), ("work/run", "..")):
        run_folder = tmp_path / place
        stored = stored_inputs(files, run_folder)
        assert stored == [f"{up}/ckpt.pt", whole[1], f"{up}/link", f"{up}/deep/meta.pkl"]
        assert list(read_inputs(stored, run_folder)) == whole
    for odd in (None, 3, "ckpt.pt", {"a": 1}, [3, None]):
        assert read_inputs(odd, tmp_path) == ()
