"""Texts on object storage, against moto's server: each is what the same file of this machine is."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundled import CHECKPOINT
from object_server import SECRET

import lossprobe
from lossprobe.cli.main import run
from lossprobe.errors import BadTextError, TextError
from lossprobe.objects import folder as copies
from lossprobe.objects import store

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("objects")]
LINES = [{"text": f"It shows {number} times.\n"} for number in range(30)]
JSONL = "".join(json.dumps(line) + "\n" for line in LINES).encode()


def documents(path, **options):
    return list(lossprobe.open_text(path, lossprobe.TextOptions(**options)).documents())


def kept():
    return sorted(Path(".lossprobe/objects/texts").iterdir())


@pytest.mark.parametrize("name", ["val.txt", "val.jsonl", "val.jsonl.gz", "val.parquet"])
def test_a_file_reads_as_the_local_one(objects, name):
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": [line["text"] for line in LINES]}), name)
    else:
        Path(name).write_bytes(gzip.compress(JSONL) if name.endswith("gz") else JSONL)
    objects.put(f"texts/{name}", Path(name).read_bytes())
    address = f"s3://bucket/texts/{name}"
    found, local = documents(address), documents(name)
    assert [document.text for document in found] == [document.text for document in local]
    assert len(found) == (1 if name == "val.txt" else 30)
    assert {document.source for document in found} == {address}
    assert lossprobe.open_text(address).name == lossprobe.open_text(name).name == "val"


def test_a_prefix_reads_as_the_local_folder(objects):
    files = {"b.txt": b"b", "a-1.txt": b"a1", "a/z.txt": b"az", ".hidden": b"no", "c.log": b"log", "a/.no/x": b"no"}
    for name, data in files.items():
        (Path("many") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("many") / name).write_bytes(data)
        objects.put(f"many/{name}", data)
    for options in ({}, {"exclude": ("*.log",)}, {"include": ("a",)}):
        found, local = documents("s3://bucket/many", **options), documents("many", **options)
        assert [each.text for each in found] == [each.text for each in local]
        assert [each.source for each in found] == [f"s3://bucket/{each.source}" for each in local]
    assert lossprobe.open_text("s3://bucket/many").name == "many"
    notices = lossprobe.open_text("s3://bucket/many", lossprobe.TextOptions(exclude=("c*",))).notices
    assert notices == ["s3://bucket/many: 1 of 4 objects left out by `include` and `exclude`"]


def test_a_copy_is_used_again_until_the_object_changes(objects, monkeypatch):
    objects.put("one.txt", b"first")
    assert documents("s3://bucket/one.txt")[0].text == "first"
    (file,) = kept()
    monkeypatch.setattr(store.ObjectStore, "fetch", None)
    assert documents("s3://bucket/one.txt")[0].text == "first"
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ENDPOINT_URL", objects.url)
    for name, value in objects.environment().items():
        monkeypatch.setenv(name, value)
    objects.put("one.txt", b"other")
    assert documents("s3://bucket/one.txt")[0].text == "other"
    (other,) = kept()
    assert other != file
    assert Path(".lossprobe/objects/.gitignore").read_text() == "*\n"


def test_scores_name_the_address_and_equal_those_of_the_file(objects, capsys):
    Path("val.jsonl").write_bytes(JSONL)
    objects.put("val.jsonl", JSONL)
    results = []
    for text in ("val.jsonl", "s3://bucket/val.jsonl"):
        assert run(["tokens", str(CHECKPOINT), text, "--csv", "-", "-q"]) == 0
        results.append(capsys.readouterr().out)
    assert results[0] == results[1]
    shutil.rmtree(".lossprobe")  # a text is what it holds, so that the run of the file would be found
    Path("lossprobe.toml").write_text(
        f"schema = 1\n[model]\ncheckpoint = {json.dumps(str(CHECKPOINT))}\n[data.text]\npath = 's3://bucket/val.jsonl'\n"
        "[[check]]\nid = 'low'\nmetric = 'nll'\nmax = 100\n"
    )
    assert run(["audit"]) == 0
    stored = lossprobe.latest()
    assert stored.query("SELECT DISTINCT source FROM documents")["source"].tolist() == ["s3://bucket/val.jsonl"]
    assert SECRET not in (stored.path / "run.json").read_text()


def test_what_is_not_there_is_said_in_one_line(objects, monkeypatch, capsys):
    objects.put("there.txt", b"It shows.")

    def told(address):
        code = run(["tokens", str(CHECKPOINT), address])
        err = capsys.readouterr().err
        assert err.count("error[") == 1
        assert SECRET not in err
        return code, err

    assert told("s3://bucket/nothing.txt")[0] == 2
    code, err = told("s3://nobucket/x.txt")
    assert code == 4
    assert "s3://nobucket/x.txt: cannot be read: there is no such bucket" in err
    monkeypatch.setattr(store, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, err = told("s3://bucket/there.txt")
    assert code == 4
    assert "no connection" in err


def test_a_store_that_does_not_answer_ends_in_bounded_time(monkeypatch, capsys):
    monkeypatch.setattr(store, "SILENT_SECONDS", 2)
    monkeypatch.setattr(store, "ATTEMPTS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert run(["tokens", str(CHECKPOINT), "s3://bucket/x.txt"]) == 4
    assert "s3://bucket/x.txt: cannot be read: no connection" in capsys.readouterr().err


def test_an_object_that_ends_early_or_changes_is_refused(objects, monkeypatch):
    objects.put("short.txt", b"It shows.")
    monkeypatch.setattr(store.ObjectStore, "size", lambda self, address: 12)
    with pytest.raises(BadTextError, match="ends after 9 of 12 bytes"):
        lossprobe.open_text("s3://bucket/short.txt")
    monkeypatch.setattr(store.ObjectStore, "size", lambda self, address: 9)
    whole = store.ObjectStore.fetch

    def changing(self, address, file, size):
        whole(self, address, file, size)
        objects.put("short.txt", b"Not that.")

    monkeypatch.setattr(store.ObjectStore, "fetch", changing)
    with pytest.raises(TextError, match="changed while it was copied"):
        lossprobe.open_text("s3://bucket/short.txt")
    assert kept() == []


def test_no_space_is_said_before_anything_is_copied(objects, monkeypatch):
    objects.put("large.txt", b"It shows.")
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda _: usage._replace(free=8))
    with pytest.raises(BadTextError, match=r"9 bytes are to be copied into .*, where 8 are free"):
        lossprobe.open_text("s3://bucket/large.txt")
    with pytest.raises(TextError, match="more than 8 bytes"):
        lossprobe.open_text("s3://bucket/large.txt", lossprobe.TextOptions(max_bytes=8))
    assert kept() == []
