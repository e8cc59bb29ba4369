"""JSON files are read strictly and up to a limit, and refused in one line."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.checkpoint.files.json_file import parse_json, read_json
from lossprobe.errors import CheckpointError


def refused(action, *arguments):
    with pytest.raises(CheckpointError) as caught:
        action(*arguments)
    assert caught.value.exit_code == 3
    assert caught.value.message.isprintable()
    return caught.value.id, caught.value.message


def test_an_object_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5, "é", null], "b": {"b": Infinity}, "c": -Infinity}', encoding="utf-8")
    assert read_json(path) == {"a": [1, 2.5, "é", None], "b": {"b": math.inf}, "c": -math.inf}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "line 1: Expecting value"),
        (b'{\n"a": }', "line 2: Expecting value"),
        (b'{"a": NaN}', "NaN is not allowed in JSON"),
        (b'{"x": {"a": 1, "a\\u001b": 2, "a\\u001b": 3}}', "key a\\x1b appears twice"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b"3", "holds a int, not an object"),
        (b'\xff{"a": 1}', "can't decode byte 0xff"),
        (b'{"a": ' + b"1" * 5000 + b"}", "Exceeds the limit"),
    ],
)
def test_what_is_not_strict_json_is_refused(text, reason):
    id, message = refused(parse_json, text, "dir/a.json")
    assert id == "checkpoint.bad_json"
    assert message.startswith("dir/a.json: ")
    assert reason in message


def test_what_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "a.json"
    assert refused(read_json, path) == ("checkpoint.unreadable", f"{path}: cannot be read: No such file or directory")
    assert refused(read_json, tmp_path)[1].endswith("cannot be read: Is a directory")
    assert "null byte" in refused(read_json, tmp_path / "a\0b")[1]
    path.write_text('{"a": 1}')
    assert read_json(path, 8) == {"a": 1}
    assert refused(read_json, path, 7) == ("checkpoint.json_too_large", f"{path}: larger than 7 bytes, the limit")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file")
def test_an_endless_file_is_not_read():
    id, message = refused(read_json, Path("/dev/zero"), 1000)
    assert id == "checkpoint.unreadable"
    assert message.endswith("is not a file but a device")


@given(st.binary(max_size=60) | st.text('{}[]":,0123456789.eE-+truefalsnNInity\\ud8', max_size=60).map(str.encode))
def test_bytes_are_parsed_or_refused(data):
    try:
        content = parse_json(data, "x")
    except CheckpointError:
        return
    assert isinstance(content, dict)
