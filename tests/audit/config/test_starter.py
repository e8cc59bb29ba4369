"""The file that `audit init` writes is one that `audit` reads, whatever the paths."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossprobe.audit.config.reader import read_settings
from lossprobe.audit.config.starter import starting_file, toml_string
from lossprobe.errors import UsageError


def write(folder, checkpoint, texts):
    path = folder / "lossprobe.toml"
    path.write_bytes(starting_file(checkpoint, texts, folder).encode())
    return path, read_settings(path)


def test_the_first_checks_are_these(tmp_path):
    path, audit = write(tmp_path, tmp_path / "out/ckpt", [tmp_path / "data/valid.jsonl.gz"])
    assert audit.model.checkpoint == tmp_path / "out/ckpt"
    assert [(text.name, text.path) for text in audit.data] == [("valid", tmp_path / "data/valid.jsonl.gz")]
    assert (audit.baseline.path, audit.baseline.missing) == (tmp_path / "lossprobe-baseline", "error")
    assert (audit.stats.confidence, audit.stats.seed, audit.stats.stop_early) == (0.95, 0, False)
    assert [(check.id, check.data, check.metric, check.limit.kind, check.limit.value) for check in audit.checks] == [
        ("no-regression", "valid", "nll", "max_increase", 0.01),
        ("no-overconfidence", "valid", "confidence_gap", "max_increase", 0.01),
        ("no-new-disasters", "valid", "share_above", "max_increase", 0.001),
    ]
    assert audit.checks[2].nats == 10.0
    text = path.read_text("utf-8")
    assert 'checkpoint = "out/ckpt"' in text
    assert 'path = "data/valid.jsonl.gz"' in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_commented_out_parts_work_too(tmp_path):
    text = starting_file(Path("a"), [Path("b")], Path())
    lines = [line.removeprefix("# ") for line in text.splitlines() if "=" in line or "[[" in line]
    lines = [line.replace('"…"', f'"{"0" * 64}"') for line in lines]
    headers = [line for line in text.splitlines() if line.startswith("[") and line not in lines]
    assert headers == ["[model]", "[eval]", "[data.b]", "[baseline]", "[stats]"]
    uncommented = "\n".join(
        line.replace('"…"', f'"{"0" * 64}"').removeprefix("# ")
        if line.removeprefix("# ").split(" ")[0] in KEYS
        else line
        for line in text.splitlines()
    )
    path = tmp_path / "lossprobe.toml"
    path.write_text(uncommented, "utf-8")
    audit = read_settings(path)
    assert (audit.windows.context, audit.windows.stride, audit.model.device) == (256, 128, "auto")
    assert (audit.checks[-1].metric, audit.checks[-1].limit.kind) == ("perplexity", "max")


KEYS = ("tokenizer", "device", "dtype", "context", "stride", "sha256", "[[check]]", "id", "data", "metric", "max")


def test_each_text_has_its_name_and_its_checks(tmp_path):
    texts = [
        Path("a/valid.txt"),
        Path("b/valid.jsonl"),
        Path("VALID.md"),
        Path("größe & co"),
        Path("…"),
        Path("v1.2.txt"),
    ]
    _, audit = write(tmp_path, Path("ckpt"), texts)
    names = ["valid", "valid-2", "VALID-3", "gr-e-co", "text", "v1-2"]
    assert [text.name for text in audit.data] == names
    assert [text.path.absolute() for text in audit.data] == [text.absolute() for text in texts]
    assert len(audit.checks) == 3 * len(texts)
    assert {check.id for check in audit.checks if check.data == "v1-2"} == {
        "no-regression-v1-2", "no-overconfidence-v1-2", "no-new-disasters-v1-2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("repo/data/a.txt", "data/a.txt"),
        ("repo", "."),
        ("other/a.txt", "../other/a.txt"),
        ("repo/data/../../other/a.txt", "../other/a.txt"),
        ("../elsewhere/a.txt", None),
    ],
)
def test_paths_are_relative_below_and_beside_the_folder(tmp_path, monkeypatch, path, written):
    root = tmp_path / "root"
    (root / "repo/data").mkdir(parents=True)
    monkeypatch.chdir(root)
    text = starting_file(Path(path), [Path("repo/x.txt")], Path("repo"))
    expected = written or (tmp_path / "elsewhere/a.txt").as_posix()
    assert tomllib.loads(text)["model"]["checkpoint"] == expected
    assert text == starting_file(root / path, [root / "repo/x.txt"], root / "repo")


def test_nothing_is_beside_a_folder_at_the_root():
    text = starting_file(Path("/somewhere/ckpt"), [Path("/no-such-repo/text")], Path("/no-such-repo"))
    assert tomllib.loads(text)["model"]["checkpoint"] == "/somewhere/ckpt"


def test_links_are_kept_where_they_are_the_name_and_followed_where_the_system_does(tmp_path):
    (tmp_path / "real/repo").mkdir(parents=True)
    (tmp_path / "real/big").mkdir()
    (tmp_path / "far").mkdir()
    (tmp_path / "far/link").symlink_to(tmp_path / "real/repo")
    (tmp_path / "real/repo/latest").symlink_to(tmp_path / "real/big")
    folder = tmp_path / "far/link"
    (tmp_path / "far/text").write_text("x")
    path, audit = write(folder, folder / "latest", [tmp_path / "far/text", tmp_path / "real/big"])
    assert audit.model.checkpoint == folder / "latest"
    assert audit.data[0].path.samefile(tmp_path / "far/text")
    assert audit.data[1].path.samefile(tmp_path / "real/big")
    assert 'path = "../big"' in path.read_text()


FILE_NAMES = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="/\0")
    | st.sampled_from("\"'\\\n\t\r#[]{}=\x7f\u202e\u2028"),
    min_size=1,
    max_size=20,
).filter(lambda name: name not in (".", "..", "-"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(FILE_NAMES, st.lists(FILE_NAMES, min_size=1, max_size=3))
def test_any_file_name_comes_back(tmp_path, checkpoint, texts):
    path, audit = write(tmp_path, tmp_path / checkpoint, [tmp_path / text for text in texts])
    assert audit.model.checkpoint == tmp_path / checkpoint
    assert [text.path for text in audit.data] == [tmp_path / text for text in texts]
    assert all(line.isprintable() for line in path.read_text("utf-8").split("\n"))


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_comes_back_from_a_toml_string(text):
    literal = toml_string(text)
    assert tomllib.loads(f"a = {literal}")["a"] == text
    assert literal.isprintable()


@pytest.mark.parametrize(
    ("checkpoint", "texts", "id", "reason"),
    [
        ("a", [], "audit.no_data", "no text"),
        ("a", ["-"], "audit.path", "standard input"),
        ("a", ["./-"], "audit.path", "standard input"),
        ("a", ["b\udcff"], "audit.path", "b\\xff: its name is not UTF-8"),
        ("a\udcff", ["b"], "audit.path", "a\\xff"),
    ],
)
def test_what_no_audit_file_can_name_is_refused(checkpoint, texts, id, reason):
    with pytest.raises(UsageError) as caught:
        starting_file(Path(checkpoint), [Path(text) for text in texts], Path())
    assert caught.value.id == id
    assert reason in caught.value.message
    assert caught.value.message.isprintable()
