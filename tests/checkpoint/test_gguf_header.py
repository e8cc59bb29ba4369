"""The header of a GGUF file: read as it is, and every lie about counts, lengths and places refused at once."""

import struct

import numpy as np
import pytest
from gguf_files import TYPES, gguf_bytes, text, value_bytes

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.gguf.header import described_type, quantised_types, read_header
from lossprobe.checkpoint.gguf.opened import read_parts
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError, UsageError

KEYS = {"general.architecture": "llama", "a.list": [1, 2, 3], "a.words": ["x", "é"], "a.flag": True, "a.float": 0.5,
        "a.long": ("u64", 2**40), "general.file_type": 7}  # fmt: skip
TENSORS = {"a.weight": np.arange(96, dtype=np.float32).reshape(3, 32), "b.weight": np.ones(5, np.float32)}
WHOLE = gguf_bytes(KEYS, TENSORS, "Q8_0")


def refused(tmp_path, data, call=read_header):
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        call(path)
    assert "\n" not in caught.value.message
    return caught.value.id


def test_keys_shapes_and_places_are_those_of_the_file(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(WHOLE)
    header = read_header(path)
    assert header.keys == {"general.architecture": "llama", "a.list": [1, 2, 3], "a.words": ["x", "é"], "a.flag": True,
                           "a.float": 0.5, "a.long": 2**40, "general.file_type": 7}  # fmt: skip
    first, second = header.tensors["a.weight"], header.tensors["b.weight"]
    assert (first.shape, first.kind, first.size) == ((3, 32), "Q8_0", 3 * 34)
    assert (second.shape, second.kind, second.size) == ((5,), "F32", 20)
    assert np.frombuffer(WHOLE[second.start :][:20], "<f4").tolist() == [1.0] * 5
    # 102 + 20 bytes for 101 values
    assert described_type([header]) == "Q8_0, 9.66 bits per weight"
    assert quantised_types([header]) == ["Q8_0"]


def header(count=0, keys=b"", tensors=0, infos=b"", version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, count) + keys + infos


def key(name, kind, content):
    return text(name) + struct.pack("<I", kind) + content


def array(kind, count, content=b""):
    return key("a", 9, struct.pack("<IQ", kind, count) + content)


def info(name="a", shape=(4,), kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def one(*tensors, data=b"\0" * 64):
    start = header(tensors=len(tensors), infos=b"".join(tensors))
    return start + b"\0" * (-len(start) % 32) + data


LIES = {
    "endless array": (header(1, array(4, 2**40)), "checkpoint.bad_header"),
    "array of endless strings": (header(1, array(8, 2**40)), "checkpoint.bad_header"),
    "array that overflows": (header(1, array(10, 2**61 + 1) + b"\0" * 64), "checkpoint.bad_header"),
    "array of arrays": (header(1, array(9, 1, b"\0" * 64)), "checkpoint.bad_header"),
    "array of nothing known": (header(1, array(77, 1, b"\0" * 64)), "checkpoint.bad_header"),
    "endless string": (header(1, key("a", 8, struct.pack("<Q", 2**63))), "checkpoint.bad_header"),
    "endless key": (header(1, struct.pack("<Q", 2**63)), "checkpoint.bad_header"),
    "endless keys": (header(2**60), "checkpoint.bad_header"),
    "many keys": (header(1 << 15, b"\0" * (13 << 15)), "checkpoint.bad_header"),
    "endless tensors": (header(tensors=2**60), "checkpoint.bad_header"),
    "a key twice": (header(2, key("a", 4, b"\0" * 4) * 2), "checkpoint.bad_header"),
    "a value of no known type": (header(1, key("a", 13, b"\0" * 8)), "checkpoint.bad_header"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + b"\0" * 64, "checkpoint.bad_header"),
    "version 1": (header(version=1), "checkpoint.bad_header"),
    "version 99": (header(version=99), "checkpoint.bad_header"),
    "alignment 0": (gguf_bytes({"general.alignment": 0}, {}), "checkpoint.bad_header"),
    "alignment 48": (gguf_bytes({"general.alignment": 48}, {}), "checkpoint.bad_header"),
    "alignment as text": (gguf_bytes({"general.alignment": "32"}, {}), "checkpoint.bad_header"),
    "a tensor twice": (one(info(), info()), "checkpoint.duplicate_tensor"),
    "no dimensions": (one(info(shape=())), "checkpoint.bad_header"),
    "five dimensions": (one(info(shape=(1,) * 5)), "checkpoint.bad_header"),
    "no rows": (one(info(shape=(4, 0))), "checkpoint.wrong_shape"),
    "sizes that overflow": (one(info(shape=(2**32, 2**32, 2**2))), "checkpoint.truncated"),
    "negative size": (one(info(shape=(2**63,))), "checkpoint.wrong_shape"),
    "half a block": (one(info(shape=(33,), kind=TYPES["Q8_0"])), "checkpoint.wrong_shape"),
    "type that was removed": (one(info(kind=4)), "checkpoint.quantized"),
    "type of the future": (one(info(kind=77)), "checkpoint.quantized"),
    "beyond the file": (one(info(offset=2**50)), "checkpoint.truncated"),
    "offset that overflows": (one(info(offset=2**64 - 32)), "checkpoint.truncated"),
    "off the grid": (one(info(offset=4)), "checkpoint.bad_header"),
    "inside another": (one(info("a", (16,)), info("b", (4,), offset=32)), "checkpoint.overlap"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_refused(tmp_path, name):
    data, id = LIES[name]
    assert refused(tmp_path, data) == id


def test_every_cut_is_refused(tmp_path):
    for length in range(4, len(WHOLE) - 13):  # the last 12 bytes are padding
        assert refused(tmp_path, WHOLE[:length]) in ("checkpoint.truncated", "checkpoint.bad_header"), length


def test_the_packing_of_the_test_itself():
    assert value_bytes(["ab"]) == struct.pack("<IIQQ", 9, 8, 1, 2) + b"ab"


def parts(folder, count=3, **changes):
    folder.mkdir()
    for number in range(count):
        keys = {"general.architecture": "llama"} if number == 0 else {}
        keys |= {"split.no": number, "split.count": count, "split.tensors.count": ("i32", count)} | changes
        path = folder / f"m-{number + 1:05}-of-{count:05}.gguf"
        path.write_bytes(gguf_bytes(keys, {f"t{number}": np.ones(4, np.float32)}))
    return folder / f"m-00001-of-{count:05}.gguf"


def test_parts_open_by_their_first(tmp_path):
    first = parts(tmp_path / "whole")
    assert [list(header.tensors) for header in read_parts(first)] == [["t0"], ["t1"], ["t2"]]
    for path, what in ((first.with_name("m-00002-of-00003.gguf"), "give m-00001-of-00003.gguf"),):
        with pytest.raises(CheckpointError) as caught:
            read_parts(path)
        assert (caught.value.id, caught.value.hint) == ("checkpoint.missing_shard", what)
    first.with_name("m-00003-of-00003.gguf").unlink()
    with pytest.raises(CheckpointError, match=r"1 of its 3 parts is missing: m-00003-of-00003\.gguf"):
        read_parts(first)
    first.rename(first.with_name("renamed.gguf"))
    with pytest.raises(CheckpointError, match=r"does not end in -00001-of-00003\.gguf"):
        read_parts(first.with_name("renamed.gguf"))


def test_parts_of_other_models_are_refused(tmp_path):
    swapped = parts(tmp_path / "a")
    swapped.with_name("m-00002-of-00003.gguf").write_bytes(swapped.with_name("m-00003-of-00003.gguf").read_bytes())
    with pytest.raises(CheckpointError, match="says that it is part 2 of 3, not 1 of 3"):
        read_parts(swapped)
    with pytest.raises(CheckpointError, match="hold 3 tensors, it says 5"):
        read_parts(parts(tmp_path / "b", **{"split.tensors.count": ("i32", 5)}))


def test_options_of_other_checkpoints_are_refused(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(WHOLE)
    for options, id in ((LoadOptions(dtype="bfloat16"), "checkpoint.dtype"),
                        (LoadOptions(tokenizer=tmp_path), "gguf.option")):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            open_checkpoint(path, options)
        assert caught.value.id == id


def test_without_llama_cpp_the_command_that_installs_it_is_told(tmp_path, monkeypatch):
    from importlib.metadata import PackageNotFoundError

    from lossprobe.checkpoint.gguf import process

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(process, "version", absent)
    path = tmp_path / "x.gguf"
    path.write_bytes(WHOLE)
    with pytest.raises(UsageError) as caught:
        open_checkpoint(path)
    assert (caught.value.id, caught.value.hint) == ("gguf.package", 'pip install "lossprobe[gguf]"')
