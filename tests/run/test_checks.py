"""Tests the checks of a run before its first query: what they find, that they run once, and paths with "=" in them."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_runs import words, write_run
from stored_runs import flip, reseal, score_texts, tree

from lossprobe.cli.main import run as command
from lossprobe.errors import OutputError, UsageError
from lossprobe.passes.score import score
from lossprobe.run import checks, reader
from lossprobe.run.baseline import MODEL_COLUMNS, open_baseline, write_baseline
from lossprobe.run.reader import latest_run, open_run
from lossprobe.run.schema import TABLES, columns_of

FILES = (
    "tokens/part-00000.parquet", "tokens/part-00001.parquet", "histogram/part-00000.parquet",
    "ladder/part-00001.parquet", "documents.parquet", "vocabulary.parquet",
)  # fmt: skip
VIEWS = ("perplexity", "positions", "hardest", "tokens", "calibration", "objectives")


def refused(run, words=".", id="run.damaged"):
    with pytest.raises(OutputError, match=words) as caught:
        open_run(run).query("SELECT avg(loss_nats) FROM tokens")
    assert (caught.value.id, caught.value.exit_code) == (id, 6)
    assert caught.value.hint
    return caught.value.message


# Paths that look like columns


@pytest.fixture(scope="session")
def partitioned(tmp_path_factory):
    """Return a folder whose path has one folder COLUMN=0 for each column of all tables."""
    names = {column.name for table in TABLES for column in columns_of(table, 17)}
    assert len(names) > 50
    return tmp_path_factory.mktemp("sweep").joinpath(*(f"{name}=0" for name in sorted(names)))


@pytest.mark.thorough
def test_no_table_takes_a_column_from_the_path(finished, partitioned):
    shutil.copytree(finished, partitioned / "tables")
    plain, moved = open_run(finished), open_run(partitioned / "tables")
    for table in TABLES:
        sql = f"SELECT * FROM {table}"
        assert moved.query(sql).equals(plain.query(sql)), table
        assert moved.query(sql).dtypes.equals(plain.query(sql).dtypes), table


@pytest.mark.parametrize("view", [*VIEWS, "compare", "hardest --by type", "calibration --by class"])
def test_every_view_is_the_same_whatever_the_path(finished, partitioned, tmp_path, monkeypatch, view):
    monkeypatch.chdir(tmp_path)
    name, *choices = view.split()
    folders = {"plain": tmp_path / "plain", "moved": partitioned / f"run-{view}"}
    results = {}
    for place, folder in folders.items():
        shutil.copytree(finished, folder / "one")
        shutil.copytree(finished, folder / "two")
        sources = [str(folder / each) for each in (("one", "two") if name == "compare" else ("one",))]
        assert command([name, *sources, *choices, "--csv", f"{place}.csv"]) == 0
        results[place] = Path(f"{place}.csv").read_bytes()
    assert results["moved"] == results["plain"]


def test_a_baseline_is_the_same_whatever_the_path(finished, partitioned):
    run = open_run(finished)
    write_baseline(run, partitioned / "baseline", MODEL_COLUMNS)
    baseline = open_baseline(partitioned / "baseline")
    names = ", ".join(("document", "token", "token_id", "unscored", *MODEL_COLUMNS))
    assert baseline.query(f"SELECT {names} FROM tokens").equals(run.query(f"SELECT {names} FROM tokens"))
    other = run.query(f"SELECT {names} FROM {baseline.relation('tokens')}")
    assert other.equals(run.query(f"SELECT {names} FROM tokens"))


def test_a_name_that_another_reader_would_expand_is_a_folder(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("~", "file:", "s3:"):
        shutil.copytree(finished, tmp_path / name / "run")
        assert open_run(Path(name) / "run").scalar("SELECT count(*) FROM tokens") > 0


# Damage


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_flipped_bit_is_found_before_the_first_query(copy, name, place):
    flip(copy / name, place)
    assert f"{name} is damaged (its sha256" in refused(copy)


@pytest.mark.parametrize("name", [*FILES, "run.json"])
def test_a_short_or_missing_file_is_found(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    assert name in refused(copy)
    (copy / name).unlink()
    if name == "run.json":
        with pytest.raises(UsageError, match="is no run"):
            open_run(copy)
    else:
        assert f"{name} is missing" in refused(copy)


def test_every_view_and_an_audit_refuse_a_damaged_run(copy, capsys):
    flip(copy / FILES[1])
    for view in (*VIEWS, "verify"):
        assert command([view, str(copy)]) == 6, view
        assert "part-00001.parquet" in capsys.readouterr().err
    with pytest.raises(OutputError, match="damaged") as caught:
        score_texts(copy)
    assert caught.value.hint == "remove its folder, on object storage its objects, or score again with `overwrite`"


def put(kind):
    def place(path):
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero" if kind == "device" else path.parents[2] / "other" / FILES[0])

    return place


@pytest.mark.parametrize("name", [*FILES, "run.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link"])
def test_what_is_no_regular_file_is_refused_and_never_waited_for(copy, finished, name, kind):
    shutil.copytree(finished, copy.parent / "other")
    put(kind)(copy / name)
    assert "symbolic link" in refused(copy) or "no regular file" in refused(copy)


@pytest.mark.parametrize("table", ["tokens", "ladder"])
def test_parts_of_another_run_are_not_read_through_a_link(copy, finished, table):
    shutil.move(copy / table, copy.parent / table)
    (copy / table).symlink_to(copy.parent / table)
    assert f"{table} is a symbolic link" in refused(copy)


# run.json


def test_an_edit_of_run_json_is_found(copy):
    text = (copy / "run.json").read_text()
    (copy / "run.json").write_text(text.replace('"vocab_size": 257', '"vocab_size": 300'))
    assert "its sha256 is not the one that it names" in refused(copy)


NAMES = [
    "../other/tokens/part-00000.parquet", "/etc/passwd", "tokens/part-0\0.parquet", "tokens\\part-00000.parquet",
    "tokens/../tokens/part-00000.parquet", "tokens.parquet", "tokens/part-99999.parquet", "", "run.json",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_file_leads_out_of_the_run(copy, name):
    reseal(copy, lambda manifest: manifest["files"].update({name: "0" * 64}))
    assert "files" in refused(copy)
    reseal(copy, lambda manifest: manifest["files"].pop(FILES[0]))
    assert "files" in refused(copy)


ODD = [None, 5, -1, 2**70, 1.5, "x", [], {}, [1], True, {"a": None}]
KEYS = ["settings", "settings.checkpoint", "settings.checkpoint.vocab_size", "settings.text.kept", "settings.windows",
        "settings.windows.context", "labels", "labels.checkpoint", "counts", "counts.documents", "counts.tokens",
        "counts.unscored_tokens", "counts.spans_tile", "part_rows", "files", "files.documents.parquet"]  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("key", KEYS)
def test_odd_types_in_run_json_are_damage_and_no_bug(copy, key, capsys):
    *path, last = ["files", "documents.parquet"] if key.startswith("files.") else key.split(".")
    good = json.loads((copy / "run.json").read_text())
    for value in ODD:
        node = good
        for name in path:
            node = node[name]
        good_value = node[last]

        def change(manifest, value=value):
            node = manifest
            for name in path:
                node = node[name]
            node[last] = value

        (copy / "run.json").write_text(json.dumps(good))
        reseal(copy, change)
        for view in ("perplexity", "positions"):
            code = command([view, str(copy)])
            # Another valid count cannot be found: whoever computes the hash again can write any number.
            allowed = (0, 6) if type(value) is type(good_value) else (6,)
            assert code in allowed, (value, capsys.readouterr().err)


@pytest.mark.parametrize("kind", [None, 1, "lossprobe baseline"])
def test_another_kind_is_not_called_another_schema(copy, kind):
    reseal(copy, lambda manifest: manifest.update(kind=kind))
    with pytest.raises(OutputError, match="its kind is") as caught:
        open_run(copy)
    assert caught.value.id == "run.damaged"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"kind": NaN}', b"null", b"{}"])
def test_a_run_json_that_is_none_is_damage(copy, data):
    (copy / "run.json").write_bytes(data)
    assert "run.json is damaged" in refused(copy)


# Well-formed files with other content, every hash computed anew


def changed(table, column, values):
    index = table.schema.get_field_index(column)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array(values(table[column].to_pylist()), field.type))


CONTENT = {
    "a column less": (FILES[0], lambda t: t.drop_columns(["loss_nats"]), "has 0 columns loss_nats"),
    "a column more": (FILES[0], lambda t: t.append_column("x", pa.nulls(len(t))), "has 1 columns x"),
    "another order": (FILES[1], lambda t: t.select(t.column_names[::-1]), "in another order"),
    "another type": (FILES[1], lambda t: t.set_column(8, "loss_nats", t["loss_nats"].cast("float64")), "is double"),
    "a type that casts": (FILES[0], lambda t: t.set_column(1, "token", t["token"].cast("int32")), "token is int32"),
    "rows less": (FILES[0], lambda t: t.slice(1), "rows, run.json says"),
    "rows more": (FILES[4], lambda t: pa.concat_tables([t, t]), "rows, run.json says"),
    "no rows": (FILES[5], lambda t: t.slice(0, 0), "rows, run.json says 257"),
    "no loss": (FILES[0], lambda t: changed(t, "loss_nats", lambda v: [None] * len(v)), "has no value in"),
    "no document": (FILES[1], lambda t: changed(t, "document", lambda v: [None, *v[1:]]), "has no value in 1 rows"),
    "a document too far": (FILES[1], lambda t: changed(t, "document", lambda v: [*v[:-1], 4]), "to 4, not from 0 to 3"),
    "an id too far": (FILES[0], lambda t: changed(t, "token_id", lambda v: [257, *v[1:]]), "not from 0 to 256"),
    "a choice below 0": (FILES[0], lambda t: changed(t, "top_id", lambda v: [v[0], -1, *v[2:]]), "goes from -1"),
    "a probability of 2": (FILES[0], lambda t: changed(t, "top_prob", lambda v: [v[0], 2.0, *v[2:]]), "to 2.0"),
    "no count": (FILES[4], lambda t: changed(t, "bytes", lambda v: [None, *v[1:]]), "has no value in 1 rows"),
    "an entry without bytes": (FILES[5], lambda t: changed(t, "bytes", lambda v: [None, *v[1:]]), "has no value in"),
}  # fmt: skip


@pytest.mark.parametrize("what", CONTENT)
def test_content_that_no_run_has_is_refused_although_its_hash_is_right(copy, what, capsys):
    name, change, words = CONTENT[what]
    pq.write_table(change(pq.read_table(copy / name)), copy / name)
    reseal(copy)
    message = refused(copy, words)
    assert name in message
    for view in ("perplexity", "tokens", "verify"):
        assert command([view, str(copy)]) == 6
    assert "internal" not in capsys.readouterr().err


def test_what_is_no_parquet_is_said(copy):
    (copy / FILES[0]).write_bytes(b"PAR1 not really PAR1")
    reseal(copy)
    refused(copy, "is no Parquet file")


def test_the_rows_of_each_part_are_those_of_the_plan(copy):
    """Two parts whose files were swapped have all rows of the run, but in another order."""
    a, b = (copy / name for name in FILES[:2])
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)
    reseal(copy, lambda manifest: manifest.update(part_rows=[*manifest["part_rows"][:-1], manifest["part_rows"][-1]]))
    rows = [pq.read_metadata(path).num_rows for path in (a, b)]
    if rows[0] == rows[1]:
        reseal(copy, lambda manifest: manifest["part_rows"].reverse())
    refused(copy, "rows, run.json says")


# Checked once


@pytest.fixture
def hashed(monkeypatch):
    """Return a list that gets an entry for each file whose hash is computed."""
    counted = []

    def count(stream, real=checks.sha256_of_stream):
        counted.append(stream)
        return real(stream)

    monkeypatch.setattr(checks, "sha256_of_stream", count)
    return counted


def read(run) -> float:
    return float(open_run(run).scalar("SELECT avg(loss_nats::DOUBLE) FROM tokens"))


def settle(monkeypatch):
    """Note a check of files that were written just now too, which `SETTLED_NS` normally prevents."""
    monkeypatch.setattr(checks, "SETTLED_NS", -(10**12))


def test_a_run_is_checked_once_and_again_when_a_file_changes(copy, hashed, monkeypatch):
    settle(monkeypatch)
    count = len(json.loads((copy / "run.json").read_text())["files"])
    value = read(copy)
    assert len(hashed) == count
    assert read(copy) == value
    assert len(hashed) == count, "the second view hashes nothing"
    later = time.time() + 5
    os.utime(copy / FILES[0], (later, later))
    assert read(copy) == value
    assert len(hashed) == 2 * count, "another time: looked at again"
    assert read(copy) == value
    assert len(hashed) == 2 * count


@pytest.mark.skipif(os.name == "nt", reason="no time of the last change of a file's state")
def test_damage_with_the_old_size_and_time_is_found(copy, monkeypatch):
    settle(monkeypatch)
    read(copy)
    before = (copy / FILES[0]).stat()
    flip(copy / FILES[0])
    os.utime(copy / FILES[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (copy / FILES[0]).stat().st_mtime_ns == before.st_mtime_ns
    refused(copy, "sha256")


def test_a_copy_with_what_was_remembered_is_checked(copy, hashed, monkeypatch):
    settle(monkeypatch)
    read(copy)
    assert (copy / ".checked").is_file()
    shutil.copytree(copy, copy.parent / "again")
    flip(copy.parent / "again" / FILES[0])
    refused(copy.parent / "again", "sha256")


def test_a_run_that_was_written_just_now_is_not_remembered(copy, hashed):
    read(copy)
    assert not (copy / ".checked").exists(), "its files may change within the same tick of the clock"
    read(copy)
    assert len(hashed) == 2 * len(json.loads((copy / "run.json").read_text())["files"])


def test_another_run_json_means_another_look(copy, monkeypatch):
    settle(monkeypatch)
    read(copy)
    reseal(copy, lambda manifest: manifest["files"].update({FILES[0]: "0" * 64}))
    refused(copy, "sha256")


def test_a_run_in_a_folder_that_cannot_be_written_is_read(copy, monkeypatch):
    settle(monkeypatch)
    monkeypatch.setattr(checks.Folder, "replace", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "no")))
    assert np.isfinite(read(copy))


def test_what_was_remembered_is_nothing_to_trip_over(copy, monkeypatch):
    settle(monkeypatch)
    os.mkfifo(copy / ".checked")
    value = read(copy)
    assert read(copy) == value
    assert (copy / ".checked").is_file()
    before = tree(copy)
    assert score(*_again(), output=copy).reused
    assert tree(copy).keys() - {".lock"} == before.keys() - {".lock"}


def _again():
    from fakes import SmallModel, checkpoint
    from stored_runs import TEXTS

    from lossprobe.text.documents import StringSource

    return checkpoint(SmallModel(0), sha256="model 0"), StringSource(TEXTS)


# Runs of earlier versions


def test_a_run_without_its_own_hash_is_read_with_a_notice(copy, capsys):
    value = read(copy)
    manifest = json.loads((copy / "run.json").read_text())
    manifest.pop("sha256")
    (copy / "run.json").write_text(json.dumps(manifest))
    assert read(copy) == value
    assert "carries no hash of its own" in open_run(copy).notices[0]
    assert command(["perplexity", str(copy)]) == 0
    assert "notice: " in (err := capsys.readouterr().err)
    assert "made by an earlier lossprobe" in err
    flip(copy / FILES[0])
    assert command(["verify", str(copy)]) == 6
    with pytest.raises(OutputError, match=r"part-00000\.parquet is missing or damaged"):
        score_texts(copy)


# The pointer to the latest run


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (b"", "run.damaged"),
        (b"\n", "run.damaged"),
        (b"a\0b\n", "run.damaged"),
        (b"x" * 100_000, "run.damaged"),
        (bytes(range(128, 192)), "run.missing"),
        (b".lossprobe/latest\n", "run.missing"),
        (b"gone\n", "run.missing"),
        (b"x" * 5_000, "run.missing"),  # longer than systems open
        (b"x" * 300, "run.missing"),
    ],
)
def test_a_damaged_pointer_has_a_code_and_a_hint(tmp_path, monkeypatch, capsys, data, id):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".lossprobe").mkdir()
    (tmp_path / ".lossprobe" / "latest").write_bytes(data)
    with pytest.raises((OutputError, UsageError)) as caught:
        latest_run(Path())
    assert caught.value.id == id
    assert caught.value.hint
    assert command(["perplexity"]) == caught.value.exit_code in (2, 6)
    assert capsys.readouterr().err.startswith(f"lossprobe: error[{id}]: ")


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "file"])
def test_a_pointer_that_is_no_file_is_refused_and_never_waited_for(tmp_path, kind):
    runs = tmp_path / ".lossprobe"
    if kind == "file":
        runs.write_text("in the way")
        with pytest.raises(UsageError, match="no run in this folder yet"):
            latest_run(tmp_path)
        return
    runs.mkdir()
    (runs / "latest").write_bytes(b"x")
    put(kind)(runs / "latest")
    with pytest.raises(OutputError, match=r"symbolic link|no regular file"):
        latest_run(tmp_path)


def test_the_only_place_that_reads_parquet_by_sql_says_how():
    source = Path(reader.__file__).parents[1]
    found = [file for file in source.rglob("*.py") if "read_parquet([{" in file.read_text("utf-8")]
    assert found == [source / "run" / "parquet.py"]


@pytest.mark.parametrize(("tokens", "told"), [(1, "1 token scored"), (2, "2 tokens scored")])
def test_what_verify_counted_is_told(tmp_path, capsys, tokens, told):
    write_run(tmp_path / "run", [words("first_token", *range(1, tokens + 1))])
    assert command(["verify", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run'}: 5 files intact, {told}\n"
