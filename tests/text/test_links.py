"""Links, pipes and devices in a folder of texts, and records with the same key twice."""

from __future__ import annotations

import json
import os

import pytest

from lossprobe.errors import TextError, UsageError
from lossprobe.text.documents import open_text
from lossprobe.text.options import TextOptions


@pytest.fixture
def folder(tmp_path):
    """A folder with one text, beside another folder with one text."""
    for name in ("texts/a.txt", "elsewhere/b.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    return tmp_path / "texts"


def read(folder, **options):
    source = open_text(folder, TextOptions(**options))
    return [document.text for document in source.documents()], source.notices


def test_a_link_out_of_the_folder_is_told_and_followed_only_when_asked(folder):
    (folder / "file.txt").symlink_to("../elsewhere/b.txt")
    (folder / "tree").symlink_to("../elsewhere")
    texts, (notice,) = read(folder)
    assert texts == ["texts/a.txt"]
    assert (
        notice
        == f"{folder}/file.txt (and 1 other): leads out of the folder and is not followed; `follow_links` follows it"
    )
    texts, (notice,) = read(folder, follow_links=True)
    assert texts == ["texts/a.txt", "elsewhere/b.txt", "elsewhere/b.txt"]
    assert "leads out of the folder and was followed" in notice


def test_a_link_to_a_file_of_the_folder_stands_for_it(folder):
    (folder / "b.txt").symlink_to("a.txt")
    assert read(folder) == (["texts/a.txt", "texts/a.txt"], [])


def test_a_link_to_a_hidden_folder_is_read_like_a_link_to_a_hidden_file(folder):
    (folder / ".cache").mkdir()
    (folder / ".cache" / "c.txt").write_text("c")
    (folder / "file.txt").symlink_to(".cache/c.txt")
    (folder / "tree").symlink_to(".cache")
    assert read(folder) == (["texts/a.txt", "c", "c"], [])


def test_a_folder_that_is_itself_a_link_was_named_by_the_user(folder, tmp_path):
    (tmp_path / "link").symlink_to("texts")
    (folder / "b.txt").symlink_to("a.txt")
    assert read(tmp_path / "link") == (["texts/a.txt", "texts/a.txt"], [])
    (tmp_path / "one.txt").symlink_to("elsewhere/b.txt")
    assert read(tmp_path / "one.txt") == (["elsewhere/b.txt"], [])


@pytest.mark.parametrize("follow", [False, True])
def test_loops_end_and_no_folder_is_read_twice(folder, tmp_path, follow):
    (folder / "deep").mkdir()
    (folder / "deep" / "c.txt").write_text("c")
    (folder / "deep" / "up").symlink_to("..")
    (folder / "same").symlink_to("deep")
    (folder / "self").symlink_to("self")
    (tmp_path / "elsewhere" / "back").symlink_to("../texts")
    (folder / "out").symlink_to("../elsewhere")
    (folder / "top").symlink_to("..")
    texts, notices = read(folder, follow_links=follow)
    assert sorted(texts) == sorted(["texts/a.txt", "c", *(["elsewhere/b.txt"] if follow else [])])
    assert any("is a link to a folder that is read already, and is skipped" in notice for notice in notices)
    assert any("is a broken link, and is skipped" in notice for notice in notices)


def test_pipes_are_left_out_and_told(folder):
    os.mkfifo(folder / "pipe")
    (folder / "null").symlink_to("/dev/null")
    texts, notices = read(folder, follow_links=True)
    assert texts == ["texts/a.txt"]
    assert f"{folder}/null (and 1 other): is not a regular file, and is skipped" in notices


def test_a_folder_of_nothing_but_links_out_says_how_to_read_it(folder):
    (folder / "a.txt").unlink()
    (folder / "b.txt").symlink_to("../elsewhere/b.txt")
    with pytest.raises(UsageError) as caught:
        open_text(folder)
    assert caught.value.id == "text.empty_folder"
    assert "`follow_links`" in caught.value.message


def test_a_key_twice_is_told_with_its_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = ['{"text": "one", "text": "two"}', '{"text": "three", "x": {"k": 1, "k": 2}}', '{"text": "four"}']
    path.write_text("\n".join(lines * 3))
    texts, notices = read(path)
    assert texts == ["two", "three", "four"] * 3
    assert notices == [
        f"{path}: 6 records with the same key twice, where the last value counts (line 1, 2, 4, 5, 7, …)"
    ]
    path.write_text(lines[2])
    assert read(path) == (["four"], [])


@pytest.mark.parametrize(
    ("value", "kind"),
    [("null", "null"), ("5", "a number"), ("true", "true or false"), ("[]", "an array"), ("{}", "an object")],
)
def test_a_field_without_text_says_what_it_holds(tmp_path, value, kind):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": {value}}}')
    with pytest.raises(TextError) as caught:
        read(path)
    assert caught.value.message.endswith(f"line 1 has no text in the field text, which holds {kind} (found: text)")


def test_numbers_that_json_does_not_have_stay_readable(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "t", "a": NaN, "b": [Infinity, 1e999], "c": "\\ud800"}')
    (document,) = open_text(path).documents()
    assert json.loads(document.fields) == {"a": "NaN", "b": ["Infinity", "1e999"], "c": "?"}
