"""Quantised weights are read as the libraries that wrote them read them, bit for bit."""

from __future__ import annotations

import pytest
import torch
from checkpoint import quantized_files as files
from checkpoint.quantized_files import parts_of

from lossprobe.checkpoint.quantized.bitsandbytes import EightBitLayout, FourBitLayout
from lossprobe.checkpoint.quantized.codes import e2m1_pairs, powers_of_two
from lossprobe.checkpoint.quantized.compressed_tensors import CompressedTensors
from lossprobe.checkpoint.quantized.mxfp4 import Mxfp4Layout
from lossprobe.checkpoint.quantized.scaled import FP8, ScaledLayout
from lossprobe.checkpoint.quantized.settings import Settings

INT = {"type": "int", "symmetric": True}
ASYMMETRIC = INT | {"symmetric": False}
FLOAT = {"type": "float", "symmetric": True}
SCHEMES = {
    "int4 groups": ("pack-quantized", INT | {"num_bits": 4, "strategy": "group", "group_size": 32}),
    "int4 asymmetric": ("pack-quantized", ASYMMETRIC | {"num_bits": 4, "strategy": "group", "group_size": 32}),
    "int3 asymmetric": ("pack-quantized", ASYMMETRIC | {"num_bits": 3, "strategy": "channel"}),
    "int5": ("pack-quantized", INT | {"num_bits": 5, "strategy": "channel"}),
    "int8 packed": ("pack-quantized", INT | {"num_bits": 8, "strategy": "group", "group_size": 32}),
    "int8 tensor": ("int-quantized", INT | {"num_bits": 8, "strategy": "tensor"}),
    "int8 channel": ("int-quantized", INT | {"num_bits": 8, "strategy": "channel"}),
    "int8 asymmetric": ("int-quantized", ASYMMETRIC | {"num_bits": 8, "strategy": "channel"}),
    "fp8 tensor": ("float-quantized", FLOAT | {"num_bits": 8, "strategy": "tensor"}),
    "fp8 channel": ("float-quantized", FLOAT | {"num_bits": 8, "strategy": "channel"}),
    "fp8 group": ("float-quantized", FLOAT | {"num_bits": 8, "strategy": "group", "group_size": 32}),
    "fp8 block": ("float-quantized", FLOAT | {"num_bits": 8, "strategy": "block", "block_structure": [32, 48]}),
    "nvfp4": ("nvfp4-pack-quantized", FLOAT | {"num_bits": 4, "strategy": "tensor_group", "group_size": 16}),
    "mxfp4": ("mxfp4-pack-quantized", FLOAT | {"num_bits": 4, "strategy": "group", "group_size": 32}),
    "mxfp8": ("mxfp8-quantized", FLOAT | {"num_bits": 8, "strategy": "group", "group_size": 32}),
}  # fmt: skip


def compressed(library, scheme, form, weight, dtype):
    """Quantise a weight with compressed-tensors; return the stored parts and what the library makes of them."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    args = scheme.weights
    outputs, inputs = weight.shape
    blocks = {
        "tensor": (outputs, inputs),
        "channel": (1, inputs),
        "group": (1, args.group_size),
        "tensor_group": (1, args.group_size),
        "block": args.block_structure,
    }[args.strategy]
    rows, columns = -(-outputs // blocks[0]), -(-inputs // blocks[1])
    low, high = torch.zeros(2, rows, columns, dtype=dtype)
    for y in range(rows):
        for x in range(columns):
            block = weight[y * blocks[0] : (y + 1) * blocks[0], x * blocks[1] : (x + 1) * blocks[1]]
            low[y, x], high[y, x] = block.min(), block.max()
    whole = generate_gparam(weight.min(), weight.max()) if args.strategy == "tensor_group" else None
    scale, zero = calculate_qparams(low, high, args, global_scale=whole)
    if args.strategy == "tensor":
        scale, zero = scale.view(1), zero.view(1)
    parts = {"weight": weight, "weight_scale": scale}
    parts |= {} if whole is None else {"weight_global_scale": whole}
    parts |= {} if args.symmetric else {"weight_zero_point": zero.to(torch.int8)}
    compressor = BaseCompressor.get_value_from_registry(form)
    stored = compressor.compress(parts, scheme)
    wanted = compressor.decompress({name: tensor.clone() for name, tensor in stored.items()}, scheme)["weight"]
    return {f".{name}": tensor for name, tensor in stored.items()}, wanted


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_compressed_tensors(name, dtype):
    """The library multiplies in the dtype of the scales or in bfloat16, to which our float32 weight rounds."""
    library = pytest.importorskip("compressed_tensors.quantization")
    form, weights = SCHEMES[name]
    scheme = library.QuantizationScheme(targets=["Linear"], weights=library.QuantizationArgs(**weights))
    torch.manual_seed(0)
    stored, wanted = compressed(library, scheme, form, (torch.randn(96, 192) * 0.1).to(dtype), dtype)
    config = {"format": form, "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    layout = CompressedTensors.read(Settings(config, "config.json")).layout("model.layers.0.mlp.up_proj")
    parts = parts_of(stored)
    assert layout.required == set(stored)
    assert layout.shape(parts) == (96, 192)
    assert torch.equal(layout.weight(parts).to(wanted.dtype), wanted)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(96, 192), (7, 130)])
def test_bitsandbytes_4_bit(kind, nested, dtype, shape):
    functional = pytest.importorskip("bitsandbytes.functional")
    torch.manual_seed(0)
    weight = (torch.randn(*shape) * 0.1).to(dtype)
    packed, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=nested, quant_type=kind)
    wanted = functional.dequantize_4bit(packed, state)
    stored = {".weight": packed} | {f".weight.{end}": each for end, each in state.as_dict(packed=True).items()}
    layout, parts = FourBitLayout(kind, nested), parts_of(stored)
    assert layout.required == set(stored)
    assert layout.shape(parts) == shape
    assert torch.equal(layout.weight(parts).to(dtype), wanted)


def test_bitsandbytes_8_bit():
    functional = pytest.importorskip("bitsandbytes.functional")
    torch.manual_seed(0)
    codes, scale, _ = functional.int8_vectorwise_quant((torch.randn(96, 192) * 0.1).half())
    parts = parts_of({".weight": codes, ".SCB": scale, ".weight_format": torch.tensor(0, dtype=torch.uint8)})
    assert EightBitLayout().shape(parts) == (96, 192)
    assert torch.equal(EightBitLayout().weight(parts), functional.int8_vectorwise_dequant(codes, scale))


@pytest.mark.parametrize("kind", ["float32", "e8m0"])
def test_fp8_blocks_of_transformers(kind):
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    torch.manual_seed(0)
    stored, _ = files.scaled(torch.randn(256, 384), (128, 128), end=".weight_scale_inv")
    if kind == "e8m0":
        stored[".weight_scale_inv"] = stored[".weight_scale_inv"].to(torch.float8_e8m0fnu)
    layout, parts = ScaledLayout(FP8, ".weight_scale_inv", (128, 128), ("F32", "F8_E8M0")), parts_of(stored)
    layout.shape(parts)
    theirs = Fp8Dequantize(None)._dequantize_one(stored[".weight"], stored[".weight_scale_inv"], torch.float32)
    assert torch.equal(layout.weight(parts), theirs)


def test_mxfp4_of_transformers():
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    torch.manual_seed(0)
    blocks = torch.randint(0, 256, (3, 64, 5, 16), dtype=torch.uint8)
    scales = torch.randint(100, 140, (3, 64, 5), dtype=torch.uint8)
    parts = parts_of({"_blocks": blocks, "_scales": scales})
    assert Mxfp4Layout().shape(parts) == (3, 160, 64)
    theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    assert torch.equal(Mxfp4Layout().weight(parts), theirs)


def test_number_formats_of_torch():
    octets = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(powers_of_two(octets)[:255], torch.exp2(torch.arange(255.0) - 127))
    values = [[files.fp4_of(code) for code in (octet & 15, octet >> 4)] for octet in range(256)]
    assert e2m1_pairs().tolist() == values
