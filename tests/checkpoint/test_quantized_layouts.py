"""Each layout gives, bit for bit, the weight that an independent packer meant; a wrong order gives another one."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from checkpoint import quantized_files as files
from checkpoint.quantized_files import parts_of

from lossprobe.checkpoint.quantized.awq import AwqLayout
from lossprobe.checkpoint.quantized.bitsandbytes import EightBitLayout, FourBitLayout
from lossprobe.checkpoint.quantized.codes import e2m1_pairs, powers_of_two, unpack
from lossprobe.checkpoint.quantized.gptq import GptqLayout
from lossprobe.checkpoint.quantized.mxfp4 import Mxfp4Layout
from lossprobe.checkpoint.quantized.nvfp4 import Fp4Layout
from lossprobe.checkpoint.quantized.packed_integers import PackedLayout
from lossprobe.checkpoint.quantized.scaled import FP8, ScaledLayout
from lossprobe.errors import CheckpointError


@pytest.fixture(scope="module")
def weight():
    """A weight [out, in] whose rows, groups and sides cannot be confused."""
    torch.manual_seed(0)
    return torch.randn(32, 64) * torch.linspace(0.02, 0.3, 64) + torch.linspace(-0.05, 0.1, 32)[:, None]


def same(layout, made):
    """Check a layout against what a packer made."""
    stored, value = made
    parts = parts_of(stored)
    assert layout.required <= parts.entries.keys() <= layout.required | layout.optional
    assert layout.shape(parts) == value.shape
    weight = layout.weight(parts)
    assert (weight.dtype, weight.is_contiguous()) == (torch.float32, True)
    assert torch.equal(weight, torch.from_numpy(value.astype(np.float32)))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("by_activation", [False, True])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("group_size", [16, -1])
def test_gptq(weight, bits, symmetric, by_activation, version, group_size):
    made = files.gptq(weight, bits, group_size, symmetric, by_activation, version)
    same(GptqLayout(bits, group_size, symmetric, by_activation, version), made)


def test_a_zero_point_of_0_wraps_in_version_1():
    made = files.gptq(torch.rand(32, 64) + 1, 4, 16, symmetric=False)
    assert (unpack(made[0][".qzeros"], 4) == 15).all()
    same(GptqLayout(4, 16, False, False, 1), made)


@pytest.mark.parametrize("group_size", [16, 64])
def test_awq(weight, group_size):
    same(AwqLayout(group_size), files.awq(weight, group_size))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [16, 0])
def test_packed_integers(weight, bits, symmetric, group_size):
    same(PackedLayout(bits, symmetric, group_size), files.pack_quantized(weight, bits, group_size, symmetric))


def test_packed_integers_of_a_ragged_width_and_in_groups_by_activation(weight):
    same(PackedLayout(3, False, 0), files.pack_quantized(weight[:29, :43], 3, 0, symmetric=False))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    stored, value = files.pack_quantized(weight, 4, 16, symmetric=False)
    codes = unpack(stored[".weight_packed"], 4).numpy()[:, order.numpy()]
    stored |= {".weight_packed": files.rows_packed(codes, 4), ".weight_g_idx": (order // 16).int()}
    same(PackedLayout(4, False, 16, by_activation=True), (stored, value[:, order.numpy()]))


@pytest.mark.parametrize("block", [(0, 0), (1, 0), (1, 16), (24, 40), (128, 128)])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_scaled(weight, block, dtype):
    layout = ScaledLayout(FP8 if dtype.is_floating_point else "I8", ".weight_scale", block)
    same(layout, files.scaled(weight, block, dtype))


def test_scales_may_lack_sides_of_length_1(weight):
    for block, shapes in (((0, 0), [(), (1,), (1, 1)]), ((1, 0), [(32,), (32, 1)])):
        stored, value = files.scaled(weight, block)
        for shape in shapes:
            reshaped = stored | {".weight_scale": stored[".weight_scale"].view(shape)}
            same(ScaledLayout(FP8, ".weight_scale", block, bare=True), (reshaped, value))


def test_scales_that_are_powers_of_two(weight):
    stored, _ = files.scaled(weight, (16, 16))
    scale = stored[".weight_scale"].to(torch.float8_e8m0fnu)
    value = stored[".weight"].double() * scale.double().repeat_interleave(16, 0).repeat_interleave(16, 1)
    layout = ScaledLayout(FP8, ".weight_scale", (16, 16), ("F8_E8M0", "U8"))
    for each in (scale, scale.view(torch.uint8)):
        same(layout, (stored | {".weight_scale": each}, value.numpy()))


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("nvfp4", Fp4Layout(".weight_packed", ".weight_global_scale", divides=True)),
        ("modelopt", Fp4Layout(".weight", ".weight_scale_2", divides=False)),
        ("mxfp4", Fp4Layout(".weight_packed", "", divides=False, group_size=32)),
    ],
)
def test_fp4(weight, kind, layout):
    stored, value = files.fp4(weight, kind)
    same(layout, (stored, value))
    if layout.global_end:  # the other convention is far off
        other = Fp4Layout(layout.codes_end, layout.global_end, not layout.divides).weight(parts_of(stored))
        assert not torch.allclose(other, torch.from_numpy(value).float(), rtol=0.5)


def test_mxfp4_of_experts(weight):
    made = [files.fp4(each, "mxfp4") for each in (weight, -2 * weight)]
    stored = {
        "_blocks": torch.stack([parts[".weight_packed"] for parts, _ in made]).view(2, 32, 2, 16),
        "_scales": torch.stack([parts[".weight_scale"] for parts, _ in made]),
    }
    same(Mxfp4Layout(), (stored, np.stack([value.T for _, value in made])))


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [(32, 64), (3, 43)])
def test_bitsandbytes_4_bit(kind, nested, shape):
    same(FourBitLayout(kind, nested), files.four_bit(shape, kind, nested))


def test_bitsandbytes_8_bit():
    codes = torch.arange(-127, 128, 2, dtype=torch.int8).view(8, 16)
    scale = torch.linspace(0.1, 2, 8)
    value = codes.numpy().astype(np.float32) * scale.numpy()[:, None] * np.float32(7.874015718698502e-3)
    same(EightBitLayout(), ({".weight": codes, ".SCB": scale, ".weight_format": torch.tensor(0).byte()}, value))
    assert value[0, 0] == pytest.approx(-0.1)


def test_worked_numbers_of_the_docstrings():
    assert unpack(torch.tensor([[0x21]], dtype=torch.int32), 4).tolist() == [[1, 2, 0, 0, 0, 0, 0, 0]]
    assert e2m1_pairs()[0x2A].tolist() == [-1.0, 1.0]
    assert powers_of_two(torch.tensor([126, 255], dtype=torch.uint8)).nan_to_num(-1).tolist() == [0.5, -1.0]


BAD = {
    "a zero point too few": (False, False, 1, "qzeros", lambda each: each[:, :-1], "has shape"),
    "a scale too few": (False, False, 1, "scales", lambda each: each[:-1], "has shape [3, 32], it should be [4, 32]"),
    "another version": (True, False, 2, "qzeros", lambda each: each, "7, but config.json says sym, which is 8"),
    "another order": (True, False, 1, "g_idx", lambda each: each.flip(0), "another order than that of the inputs"),
    "other groups": (True, True, 1, "g_idx", lambda each: each * 0, "does not hold each of 4 groups 16 times"),
    "no codes": (True, True, 1, "qweight", lambda each: each.float(), "is stored as F32, this format has I32"),
}


@pytest.mark.parametrize("name", BAD)
def test_gptq_that_contradicts_itself(weight, name):
    symmetric, by_activation, version, end, change, message = BAD[name]
    layout = GptqLayout(4, 16, symmetric, by_activation, version)
    stored, _ = files.gptq(weight, 4, 16, symmetric=True)
    stored[f".{end}"] = change(stored[f".{end}"]).contiguous()
    parts = parts_of(stored)
    with pytest.raises(CheckpointError, match=f"tensor x.{end} .*{re.escape(message)}") as caught:
        layout.weight(parts) if layout.shape(parts) else None
    assert caught.value.id == "checkpoint.quantized_tensor"


def test_codes_beyond_the_last_one(weight):
    stored, _ = files.pack_quantized(weight[:, :43], 4, 0)
    stored[".weight_packed"][3, -1] |= 1 << 28
    with pytest.raises(CheckpointError, match=r"x\.weight_packed holds codes beyond the 43 of a line"):
        PackedLayout(4, True, 0).weight(parts_of(stored))
    stored[".weight_shape"][1] = 52
    with pytest.raises(CheckpointError, match=r"x.weight_shape says \[32, 52\], but 32 x 6 words hold other codes"):
        PackedLayout(4, True, 0).shape(parts_of(stored))


STATES = {
    "another kind": ({"quant_type": "fp4"}, "contradicts its name"),
    "no shape": ({"shape": []}, "states sizes"),
    "a shape of floats": ({"shape": [32.0, 64]}, "states sizes"),
    "another size": ({"shape": [32, 66]}, "weights need 1056 bytes"),
    "blocks of 0": ({"blocksize": 0}, "states sizes"),
    "another key": ({"extra": 1}, "holds other keys"),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_of_bitsandbytes_that_is_wrong(name):
    changes, message = STATES[name]
    stored, _ = files.four_bit((32, 64), "nf4", nested=True, changes=changes)
    with pytest.raises(CheckpointError, match=message):
        FourBitLayout("nf4", nested=True).shape(parts_of(stored))


def test_another_table_than_that_of_nf4():
    stored, _ = files.four_bit((32, 64), "nf4", nested=False)
    stored[".weight.quant_map"] = stored[".weight.quant_map"].flip(0).contiguous()
    with pytest.raises(CheckpointError, match=r"x\.weight\.quant_map holds another table than that of nf4"):
        FourBitLayout("nf4", nested=False).weight(parts_of(stored))
