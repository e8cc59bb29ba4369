"""Addresses of object storage, and what needs no server."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundled import CHECKPOINT

import lossprobe
from lossprobe.cli.main import run
from lossprobe.errors import UsageError
from lossprobe.objects.address import address_of
from lossprobe.objects.folder import shown_place
from lossprobe.objects.store import reason_of
from lossprobe.run.twin import folder_of, twin_of


def test_a_path_with_one_slash_is_the_address():
    address = address_of(Path("s3://bucket/a folder/val.jsonl"))
    assert (address.bucket, address.key) == ("bucket", "a folder/val.jsonl")
    assert address.uri == "s3://bucket/a folder/val.jsonl"
    assert address_of(Path("/data/s3:/bucket/x")) is None
    assert address_of(Path()) is None


@pytest.mark.parametrize("text", ["s3://bucket", "s3://", "s3://bucket/../other/x"])
def test_an_address_names_a_key(text):
    with pytest.raises(UsageError, match=r"is no s3://BUCKET/KEY"):
        address_of(Path(text))


@pytest.mark.parametrize("text", ["s3://me:hidden@bucket/x", "s3://bucket/x?secret_key=hidden&scheme=http"])
def test_secrets_in_an_address_are_refused_and_not_shown(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("It shows.")
    for command in (
        ["score", str(CHECKPOINT), text], ["tokens", text], ["tokens", text, "text.txt"], ["gather", text],
        ["score", str(CHECKPOINT), "text.txt", "-o", text], ["runs", "remove", text],
    ):  # fmt: skip
        assert run(command) == 2, command
        out, err = capsys.readouterr()
        assert "error[object.address]" in err
        assert "hidden" not in out + err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["text.txt"]


def test_a_folder_stands_for_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(Path("s3://bucket/runs/x"))
    assert folder == Path(".lossprobe/objects/s3/bucket/runs/x")
    assert shown_place(folder) == twin_of(folder.absolute()).address.uri == "s3://bucket/runs/x"
    for other in (Path("runs/x"), Path(".lossprobe/x"), Path(".lossprobe/objects/s3/bucket")):
        assert twin_of(other) is None
        assert shown_place(other) == str(folder_of(other)) == str(other)


def test_checkpoints_are_not_read_from_object_storage(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["score", "s3://bucket/model", "s3://bucket/val.jsonl"]) == 2
    assert "error[object.checkpoint]: s3://bucket/model: " in capsys.readouterr().err
    for words in (["inspect", "s3://bucket/model"], ["selfcheck", "s3://bucket/model", "text.txt"]):
        assert run(words) == 2
        assert "error[object.checkpoint]: s3://bucket/model: " in capsys.readouterr().err
    Path("text.txt").write_text("It shows.")
    with pytest.raises(UsageError, match="s3://bucket/model: a checkpoint is read from files") as caught:
        lossprobe.score("s3://bucket/model", "text.txt")
    assert caught.value.id == "object.checkpoint"


def test_reasons_are_short():
    message = "When getting information for key 'x' in bucket: AWS Error ACCESS_DENIED during HeadObject operation: "
    assert reason_of(message + "No response body.").startswith("access denied")
    assert reason_of(message.replace("ACCESS_DENIED", "SLOW_DOWN") + "Wait (Request ID: 7)") == (
        "SLOW_DOWN during HeadObject: Wait"
    )
    assert reason_of("Something else\nand more") == "Something else"
