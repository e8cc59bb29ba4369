"""Safetensors files, built byte by byte: every bad one is refused with the number that proves it."""

import hashlib
import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lossprobe.checkpoint.files import safetensors_file
from lossprobe.checkpoint.files.hashes import file_sha256
from lossprobe.checkpoint.files.safetensors_file import TensorEntry, scan_header
from lossprobe.checkpoint.files.stored_tensors import StoredTensors
from lossprobe.errors import CheckpointError

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "F32", "shape": [1, 1], "data_offsets": [8, 12]}
DATA = np.arange(3, dtype="<f4").tobytes()


def built(header, data=DATA, length=None):
    """Return a file: the header's length (or another), the header, the data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


GOOD = built({"a": A, "b": B, "__metadata__": {"format": "pt"}})


def write(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    return path


def refused(path, id, action=scan_header):
    with pytest.raises(CheckpointError) as caught:
        action(path)
    assert (caught.value.id, caught.value.exit_code) == (id, 3)
    assert caught.value.message.startswith(f"{path}")
    assert caught.value.message.isprintable()
    return caught.value.message


STORED = {"a": TensorEntry("F32", (2,), 0, 8), "b": TensorEntry("F32", (1, 1), 8, 12)}


def read_tensors(path, entries=STORED):
    """Return some tensors of a file: those of the good one, and of its damaged copies."""
    with StoredTensors({path: entries}) as stored:
        return {name: stored.tensor(name) for name in entries}


def test_a_good_file(tmp_path):
    path = write(tmp_path, GOOD)
    assert scan_header(path) == STORED
    tensors = read_tensors(path)
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"a": [0.0, 1.0], "b": [[2.0]]}
    assert file_sha256(path) == hashlib.sha256(GOOD).hexdigest()


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_what_the_library_writes_is_read_back(tmp_path, dtype):
    stored = {"x": torch.ones(3, 2).to(getattr(torch, dtype)), "scalar": torch.zeros((), dtype=torch.float32)}
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(stored, path)
    assert {name: entry.shape for name, entry in scan_header(path).items()} == {"x": (3, 2), "scalar": ()}
    read = read_tensors(path, scan_header(path))
    assert all(torch.equal(read[name], stored[name]) for name in stored)


REPEATED = (
    b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}'
)


@pytest.mark.parametrize(
    ("content", "id", "message"),
    [
        pytest.param(b"", "checkpoint.empty", "file is empty", id="C02"),
        pytest.param(GOOD[:7], "checkpoint.truncated", "7 bytes, shorter than 8 bytes", id="C03"),
        pytest.param(
            built({}, length=2**63),
            "checkpoint.bad_header",
            "header length 9,223,372,036,854,775,808 exceeds file size 22",
            id="C04-2^63",
        ),
        pytest.param(GOOD[:8], "checkpoint.bad_header", "exceeds file size 8", id="C04-no-header"),
        pytest.param(GOOD[:-1], "checkpoint.truncated", "1 bytes missing; incomplete download?", id="C05"),
        pytest.param(GOOD + b"\0", "checkpoint.trailing", "1 unexplained bytes at the end", id="C06"),
        pytest.param(
            built({"a": A, "b": B | {"data_offsets": [4, 8]}}),
            "checkpoint.overlap",
            "tensors a and b overlap",
            id="C07-overlap",
        ),
        pytest.param(built({"a": A, "b": A}), "checkpoint.overlap", "tensors a and b overlap", id="C07-equal"),
        pytest.param(
            built({"a": A, "b": B | {"data_offsets": [12, 16]}}, DATA + b"1234"),
            "checkpoint.hole",
            "4 unused bytes at offset 8, before b",
            id="C08",
        ),
        *(
            pytest.param(
                built({"a": A | {"data_offsets": offsets}}), "checkpoint.bad_header", "bad offsets for a", id="C09"
            )
            for offsets in ([-8, 0], [0.0, 8.0], [0], [0, 4, 8], "08", None, [True, 8], {"0": 8})
        ),
        pytest.param(
            built({"a": A | {"data_offsets": [8, 0]}}), "checkpoint.bad_header", "needs 8 bytes, has -8", id="C09"
        ),
        pytest.param(
            built({"a": A | {"shape": [2**33, 2**33]}}),
            "checkpoint.bad_header",
            "needs 295,147,905,179,352,825,856 bytes, has 8",
            id="C10",
        ),
        pytest.param(
            built({"a": A | {"shape": [3]}}), "checkpoint.bad_header", "tensor a: needs 12 bytes, has 8", id="C11"
        ),
        pytest.param(built(REPEATED), "checkpoint.bad_json", "key a appears twice", id="C12"),
        pytest.param(
            built(b" " + json.dumps({"a": A}).encode()), "checkpoint.bad_header", "header must start with {", id="C13"
        ),
        pytest.param(
            built({"a": A | {"shape": [0, 2**62], "data_offsets": [0, 0]}}),
            "checkpoint.bad_header",
            "tensor a: bad shape [0, 4611686018427387904]",
            id="C14",
        ),
        *(
            pytest.param(built({"a": A | {"shape": shape}}), "checkpoint.bad_header", "bad shape", id="shape")
            for shape in ([-2], [2.0], [True, 2], "2", None, [1] * 17, [2**48], {})
        ),
        *(
            pytest.param(built({"a": A | {"dtype": dtype}}), "checkpoint.bad_header", "unknown dtype", id="C16")
            for dtype in ("F128", "f32", "", None, [], {}, 32)
        ),
        pytest.param(
            built({"a\x1b[31m\n<script>": A | {"dtype": "F1"}}),
            "checkpoint.bad_header",
            r"tensor a\x1b[31m\n<script>: unknown dtype",
            id="C17",
        ),
        pytest.param(built({}, b""), "checkpoint.no_tensors", "holds no tensors", id="C20"),
        pytest.param(built({"__metadata__": {}}, b""), "checkpoint.no_tensors", "holds no tensors", id="C20-metadata"),
        pytest.param(built({"a": A, "__metadata__": {"x": 1}}), "checkpoint.bad_header", "__metadata__", id="metadata"),
        pytest.param(built({"a": A, "__metadata__": 5}), "checkpoint.bad_header", "__metadata__", id="metadata-number"),
        pytest.param(built({"a": [1]}), "checkpoint.bad_header", "lacks dtype, shape or data_offsets", id="entry"),
        pytest.param(built({"a": A | {"x": 1}}), "checkpoint.bad_header", "lacks dtype", id="entry-more"),
        pytest.param(built(b'{"a": NaN}'), "checkpoint.bad_json", "NaN is not allowed", id="NaN"),
        pytest.param(built(b"{" * 9), "checkpoint.bad_json", "line 1", id="json"),
        pytest.param(built(b'{"a":' * 100_000), "checkpoint.bad_json", "nested too deeply", id="deep"),
        pytest.param(built(b'{"\xff": 1}'), "checkpoint.bad_json", "codec can't decode", id="utf-8"),
    ],
)  # fmt: skip
def test_bad_files_are_refused(tmp_path, content, id, message):
    assert message in refused(write(tmp_path, content), id)


def test_a_large_header_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as stream:  # sparse, 41 MB
        stream.write(struct.pack("<Q", 41_000_000) + b"{")
        stream.truncate(41_000_008)
    message = refused(path, "checkpoint.bad_header")
    assert "header too large: 41,000,000 bytes (limit 16 MiB)" in message
    monkeypatch.setattr(safetensors_file, "MAX_TENSORS", 1)
    assert "2 tensors" in refused(write(tmp_path, GOOD), "checkpoint.too_many_tensors")


@pytest.mark.parametrize("path", ["missing.safetensors", "", "a\0b", "x" * 300])
def test_files_that_cannot_be_read(tmp_path, path):
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        scan_header(tmp_path / path)
    assert (caught.value.id, caught.value.exit_code) == ("checkpoint.unreadable", 3)


@pytest.mark.parametrize("kept", [0, 4, 8, len(GOOD) - 12, len(GOOD) - 1])
def test_a_file_that_shrinks_after_the_scan_is_refused(tmp_path, kept):
    path = write(tmp_path, GOOD)
    scan_header(path)
    path.write_bytes(GOOD[:kept])
    assert "file changed during reading" in refused(path, "checkpoint.changed", read_tensors)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    path = write(tmp_path, GOOD)  # mapped into memory, this would end the process
    with StoredTensors({path: scan_header(path)}) as stored:
        assert stored.tensor("a").tolist() == [0, 1]
        path.write_bytes(GOOD[:-4])
        message = refused(path, "checkpoint.changed", lambda _: stored.tensor("b"))
    assert message == f"{path}: file changed during reading (it is shorter than before)"


@pytest.mark.parametrize(
    "anew",
    [
        {"a": torch.ones(1, 2), "b": torch.ones(1, 1)},
        {"a": torch.ones(2, dtype=torch.float16), "b": torch.ones(1, 1)},
        {"a": torch.ones(2, dtype=torch.int32), "b": torch.ones(1, 1)},
        {"a": torch.ones(2)},
        {"a": torch.ones(2), "b": torch.ones(1, 1), "c": torch.ones(1)},
        {"b": torch.ones(2), "a": torch.ones(1, 1)},
    ],
)
def test_a_file_that_is_written_anew_after_the_scan_is_refused(tmp_path, anew):
    path = write(tmp_path, GOOD)
    safetensors.torch.save_file(anew, path)
    assert "file changed during reading (tensor " in refused(path, "checkpoint.changed", read_tensors)


def test_a_file_that_is_gone_after_the_scan_is_refused(tmp_path):
    assert "file changed" in refused(tmp_path / "gone", "checkpoint.changed", read_tensors)
    assert "cannot be read" in refused(tmp_path / "gone", "checkpoint.unreadable", file_sha256)


def check(path, content):
    """Refuse a file or read it; nothing else may happen."""
    path.write_bytes(content)
    try:
        entries = scan_header(path)
    except CheckpointError:
        return
    tensors = read_tensors(path, entries)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {n: e.shape for n, e in entries.items()}


@FUZZ
@given(st.binary(max_size=200))
@example(GOOD)
def test_random_bytes(tmp_path, content):
    check(tmp_path / "x", content)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=0, max_size=3)), min_size=1, max_size=4))
def test_mutated_bytes(tmp_path, changes):
    content = bytearray(GOOD)
    for position, replacement in changes:
        content[position : position + len(replacement)] = replacement
    check(tmp_path / "x", bytes(content))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 20) | st.sampled_from([2**31, 2**63, 1e308]) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BOOL", "I64", "F8_E4M3", "U16"]) | VALUES,
        "shape": st.lists(st.integers(0, 3), max_size=3) | VALUES,
        "data_offsets": st.tuples(st.integers(0, 12), st.integers(0, 12)) | VALUES,
    }
)


@FUZZ
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__", "\x1b"]), ENTRIES | VALUES, max_size=3))
def test_mutated_headers(tmp_path, header):
    check(tmp_path / "x", built(header))


def test_empty_tensors_hint_at_weights_that_were_not_gathered(tmp_path):
    path = write(tmp_path, built({"a": A | {"shape": [0], "data_offsets": [0, 0]}}))
    with pytest.raises(CheckpointError, match=r"tensor a: bad shape \[0\]") as caught:
        scan_header(path)
    assert "zero_to_fp32.py" in caught.value.hint
