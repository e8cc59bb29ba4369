"""NaN and infinity in the weights of a GGUF file, against what llama.cpp and the package gguf say of the same bytes."""

from __future__ import annotations

import ctypes
import importlib.util
import warnings
from dataclasses import replace

import numpy as np
import pytest
from gguf_files import gguf_bytes, random_gguf

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.gguf import finite
from lossprobe.checkpoint.gguf.finite import NUMBERS, refuse_not_finite
from lossprobe.checkpoint.gguf.header import TENSOR_TYPES, GGUFHeader, GGUFTensor, read_header
from lossprobe.checkpoint.gguf.library import library_file
from lossprobe.checkpoint.gguf.weights import values_of
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

with_llama = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs lossprobe[gguf]")
BLOCKS = 200
KINDS = {name: (number, values, size) for number, (name, values, size) in TENSOR_TYPES.items()}


def drawn(kind):
    """Return BLOCKS random blocks of a type, uint8 [BLOCKS, bytes]; every fifth begins and ends with ones."""
    blocks = np.random.default_rng(KINDS[kind][0]).integers(0, 256, (BLOCKS, KINDS[kind][2]), np.uint8)
    blocks[::5, :4] |= 0x7F
    blocks[::5, -4:] |= 0x7F
    return blocks


def told(path, kind, blocks):
    """Return what is refused of a file with nothing but these blocks in a tensor; "" if nothing is."""
    path.write_bytes(blocks.tobytes())
    shape = (len(blocks) * KINDS[kind][1],)
    header = GGUFHeader(path, {}, {"a.weight": GGUFTensor(shape, kind, 0, blocks.nbytes)})
    try:
        refuse_not_finite([header])
    except CheckpointError as error:
        return error.message
    return ""


def told_each(path, kind, blocks):
    return np.array([told(path, kind, block[None]) != "" for block in blocks])


@with_llama
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "F64"])  # which llama.cpp looks at as float32
def test_each_block_is_judged_as_by_llama_cpp(tmp_path, kind):
    library = ctypes.CDLL(str(library_file()))
    library.ggml_validate_row_data.restype = ctypes.c_bool
    library.ggml_validate_row_data.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    blocks = drawn(kind)
    sound = [library.ggml_validate_row_data(KINDS[kind][0], block.tobytes(), len(block)) for block in blocks]
    found = told_each(tmp_path / "x", kind, blocks)
    assert (found == ~np.array(sound)).all()
    assert found.any() == (kind in NUMBERS)


# The package gguf makes numbers of the NaN of MXFP4, and does not read the last two.
@with_llama
@pytest.mark.parametrize("kind", ["NVFP4", *sorted(NUMBERS.keys() - {"MXFP4", "Q1_0", "Q2_0"})])
def test_a_block_is_refused_if_one_of_its_values_is_not_finite(tmp_path, kind):
    path, blocks = tmp_path / "x", drawn(kind)
    path.write_bytes(blocks.tobytes())
    tensor = GGUFTensor((BLOCKS, KINDS[kind][1]), kind, 0, blocks.nbytes)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = blocks.view("<f8") if kind == "F64" else values_of(path, tensor)
    assert (told_each(path, kind, blocks) == ~np.isfinite(values).all(1)).all()


def test_the_values_are_counted_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(finite, "CHUNK", 64)
    values = np.ones(1000, np.float32)
    values[[3, 500, 501, 999]] = np.nan, np.inf, -np.inf, -np.nan
    assert told(tmp_path / "x", "F32", values.view(np.uint8).reshape(-1, 4)).endswith("a.weight: 4 non-finite values")
    assert told(tmp_path / "x", "F32", np.full(1000, -3e38, "<f4").view(np.uint8).reshape(-1, 4)) == ""
    blocks = np.zeros((100, 34), np.uint8)
    blocks[[7, 99], 1] = 0x7C
    what = "a.weight: 2 blocks of Q8_0 with a non-finite scale"
    assert told(tmp_path / "x", "Q8_0", blocks).endswith(what)
    assert told(tmp_path / "x", "BF16", np.full((1, 2), 0xFF, np.uint8)).endswith("a.weight: 1 non-finite value")


@with_llama
@pytest.mark.parametrize("dequantize", [False, True])
@pytest.mark.parametrize(
    ("kind", "number", "told_of"),
    [
        ("F32", np.nan, "1 non-finite value"),
        ("F16", -np.inf, "1 non-finite value"),
        ("Q8_0", np.inf, "1 block of Q8_0 with a non-finite scale"),
    ],
)
def test_a_model_is_refused_at_load_by_the_name_of_the_tensor(tmp_path, kind, number, told_of, dequantize):
    path, name = tmp_path / "x.gguf", "blk.1.ffn_down.weight"
    path.write_bytes(random_gguf("llama", kind=kind))
    open_checkpoint(path, LoadOptions(dequantize=dequantize))
    tensor = read_header(path).tensors[name]
    with path.open("r+b") as stream:
        stream.seek(tensor.start)
        stream.write(np.array([number], "<f4" if kind == "F32" else "<f2").tobytes())
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, LoadOptions(dequantize=dequantize))
    assert (caught.value.id, caught.value.message) == ("checkpoint.non_finite", f"{path}: {name}: {told_of}")


def test_every_part_of_a_model_is_looked_at(tmp_path):
    for number, value in enumerate((1.0, np.nan)):
        tensors = {f"t{number}": np.full(4, value, np.float32)}
        (tmp_path / f"{number}.gguf").write_bytes(gguf_bytes({"general.architecture": "llama"}, tensors))
    headers = [read_header(tmp_path / f"{number}.gguf") for number in range(2)]
    with pytest.raises(CheckpointError, match=r"1\.gguf: t1: 4 non-finite values"):
        refuse_not_finite(headers)
    short = replace(headers[0].tensors["t0"], size=64)
    with pytest.raises(CheckpointError, match="became shorter while it was read"):
        refuse_not_finite([replace(headers[0], tensors={"t0": short})])
