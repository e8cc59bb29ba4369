"""Quantise weights and pack them in the published layouts, with plain Python integers, apart from lossprobe's readers.

Each function takes a weight [out, in] and returns the stored tensors by the ends of their names, and the weight that
they stand for, in float64: code minus zero point times scale, computed number by number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import safetensors.torch
import torch

from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.checkpoint.quantized.parts import Parts

Stored = tuple[dict[str, torch.Tensor], np.ndarray]


def parts_of(stored: dict[str, torch.Tensor]) -> Parts:
    """Return the parts of a weight as if they lay in a file."""
    data = safetensors.torch.save({f"x{end}": tensor for end, tensor in stored.items()})
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    entries = {
        name.removeprefix("x"): TensorEntry(each["dtype"], tuple(each["shape"]), *each["data_offsets"])
        for name, each in header.items()
    }
    return Parts("model", "x", entries, stored.__getitem__)


def words(codes: Sequence[int], bits: int) -> list[int]:
    """Pack codes into signed 32-bit words, the first code in the lowest bits."""
    line = sum(int(code) << place * bits for place, code in enumerate(codes))
    count = -(-len(codes) * bits // 32)
    unsigned = [line >> 32 * word & 0xFFFFFFFF for word in range(count)]
    return [word - (1 << 32) if word >> 31 else word for word in unsigned]


def rows_packed(codes: np.ndarray, bits: int) -> torch.Tensor:
    """Pack each row of codes: int32 [R, W]."""
    return torch.tensor([words(row, bits) for row in codes.tolist()], dtype=torch.int32)


def integers(
    weight: torch.Tensor, bits: int, group: np.ndarray, symmetric: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round to the nearest integer codes: codes [out, in], zero points and float16 scales [out, G]."""
    values, top = weight.double().numpy(), (1 << bits) - 1
    count = int(group.max()) + 1
    codes = np.zeros(values.shape, dtype=np.int64)
    zeros, scales = np.zeros((len(values), count), dtype=np.int64), np.zeros((len(values), count), dtype=np.float16)
    for number in range(count):
        part = values[:, group == number]
        low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
        if symmetric:
            high = np.maximum(-low, high)
            low = -high
        scales[:, number] = np.maximum((high - low) / top, 1e-4)
        scale = scales[:, number].astype(np.float64)
        zeros[:, number] = 1 << bits - 1 if symmetric else np.clip(np.round(-low / scale), 0, top)
        codes[:, group == number] = np.clip(np.round(part / scale[:, None]) + zeros[:, number, None], 0, top)
    return codes, zeros, scales


def value_of(codes: np.ndarray, zeros: np.ndarray, scales: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return (q − z) · s, number by number."""
    return (codes - zeros[:, group]) * scales.astype(np.float64)[:, group]


def gptq(
    weight: torch.Tensor,
    bits: int = 4,
    group_size: int = 32,
    symmetric: bool = True,
    by_activation: bool = False,
    version: int = 1,
) -> Stored:
    """Pack as AutoGPTQ and GPTQModel do."""
    inputs = weight.shape[1]
    group = np.arange(inputs) // (inputs if group_size == -1 else group_size)
    if by_activation:
        group = group[np.random.default_rng(0).permutation(inputs)]
    codes, zeros, scales = integers(weight, bits, group, symmetric)
    stored = zeros if version == 2 else zeros - 1 & (1 << bits) - 1
    parts = {
        ".qweight": rows_packed(codes, bits).T.contiguous(),
        ".qzeros": rows_packed(stored.T, bits),
        ".scales": torch.from_numpy(scales.T.copy()),
        ".g_idx": torch.from_numpy(group.astype(np.int32)),
    }
    return parts, value_of(codes, zeros, scales, group)


def awq(weight: torch.Tensor, group_size: int = 32) -> Stored:
    """Pack as AutoAWQ's GEMM version does: eight columns a word, in the order 0, 2, 4, 6, 1, 3, 5, 7."""
    group = np.arange(weight.shape[1]) // group_size
    codes, zeros, scales = integers(weight, 4, group, symmetric=False)

    def packed(lines: np.ndarray) -> torch.Tensor:
        order = [8 * word + column for word in range(lines.shape[1] // 8) for column in (0, 2, 4, 6, 1, 3, 5, 7)]
        return rows_packed(lines[:, order], 4)

    parts = {".qweight": packed(codes.T), ".qzeros": packed(zeros.T), ".scales": torch.from_numpy(scales.T.copy())}
    return parts, value_of(codes, zeros, scales, group)


def pack_quantized(weight: torch.Tensor, bits: int = 4, group_size: int = 32, symmetric: bool = True) -> Stored:
    """Pack as compressed-tensors' pack-quantized does: codes along the inputs, zero points along the outputs."""
    outputs, inputs = weight.shape
    group = np.arange(inputs) // (group_size or inputs)
    codes, zeros, scales = integers(weight, bits, group, symmetric)
    parts = {
        ".weight_packed": rows_packed(codes, bits),
        ".weight_scale": torch.from_numpy(scales.copy()),
        ".weight_shape": torch.tensor([outputs, inputs]),
    }
    if not symmetric:
        parts[".weight_zero_point"] = rows_packed(zeros.T, bits).T.contiguous()
    return parts, value_of(codes, zeros, scales, group)


def scaled(
    weight: torch.Tensor, block: tuple[int, int], dtype: torch.dtype = torch.float8_e4m3fn, end: str = ".weight_scale"
) -> Stored:
    """Store 8-bit numbers with a float32 scale for each block of rows and columns; 0 stands for the whole side."""
    outputs, inputs = weight.shape
    rows, columns = block[0] or outputs, block[1] or inputs
    top = 127.0 if dtype == torch.int8 else 448.0
    scale = torch.zeros(-(-outputs // rows), -(-inputs // columns))
    codes = torch.zeros(outputs, inputs, dtype=dtype)
    value = np.zeros((outputs, inputs))
    for y in range(scale.shape[0]):
        for x in range(scale.shape[1]):
            place = slice(y * rows, (y + 1) * rows), slice(x * columns, (x + 1) * columns)
            scale[y, x] = weight[place].abs().max().clamp(min=1e-6) / top
            number = weight[place].float() / scale[y, x]
            codes[place] = (number.round() if dtype == torch.int8 else number).to(dtype)
            value[place] = codes[place].double().numpy() * float(scale[y, x])
    return {".weight": codes, end: scale}, value


E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def nearest_fp4(value: float) -> int:
    """Return the FP4 (E2M1) code nearest to a number."""
    magnitude = min(range(8), key=lambda code: abs(E2M1[code] - abs(value)))
    return magnitude | (8 if value < 0 else 0)


def fp4_of(code: int) -> float:
    """Return the number that an FP4 code stands for."""
    return (-1.0 if code & 8 else 1.0) * E2M1[code & 7]


def fp4(weight: torch.Tensor, kind: str) -> Stored:
    """Store FP4 numbers, two a byte, the first in the low half: "nvfp4" divides by the global scale, "modelopt"
    multiplies, "mxfp4" has powers of two in groups of 32."""
    size = 32 if kind == "mxfp4" else 16
    outputs, inputs = weight.shape
    values = weight.double().numpy()
    largest = float(np.abs(values).max())
    whole = {"nvfp4": 448.0 * 6 / largest, "modelopt": largest / (448.0 * 6), "mxfp4": 1.0}[kind]
    whole = float(np.float32(whole))
    scale = torch.zeros(outputs, inputs // size, dtype=torch.uint8 if kind == "mxfp4" else torch.float8_e4m3fn)
    octets = torch.zeros(outputs, inputs // 2, dtype=torch.uint8)
    value = np.zeros((outputs, inputs))
    for y in range(outputs):
        for x in range(inputs // size):
            part = values[y, x * size : (x + 1) * size]
            wanted = max(float(np.abs(part).max()) / 6, 1e-6)
            if kind == "mxfp4":
                scale[y, x] = int(np.clip(np.ceil(np.log2(wanted)) + 127, 0, 254))
                factor = 2.0 ** (int(scale[y, x]) - 127)
            else:
                wanted = wanted * whole if kind == "nvfp4" else wanted / whole
                scale[y, x] = max(wanted, 2**-9)
                stored = np.float32(float(scale[y, x]))
                factor = float(stored / np.float32(whole) if kind == "nvfp4" else stored * np.float32(whole))
            codes = [nearest_fp4(number / factor) for number in part]
            for place, (low, high) in enumerate(zip(codes[::2], codes[1::2], strict=True)):
                octets[y, x * size // 2 + place] = low | high << 4
            value[y, x * size : (x + 1) * size] = [fp4_of(code) * factor for code in codes]
    ends = {
        "nvfp4": (".weight_packed", ".weight_global_scale"),
        "modelopt": (".weight", ".weight_scale_2"),
        "mxfp4": (".weight_packed", ""),
    }[kind]
    parts = {ends[0]: octets, ".weight_scale": scale}
    return parts | ({ends[1]: torch.tensor(whole, dtype=torch.float32)} if ends[1] else {}), value


# The table of NF4 as QLoRA prints it, and bitsandbytes' FP4: sign, then 0, 0.0625, 8, 12, 4, 6, 2, 3 twelfths.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
FP4 = [0, 0.0625 / 12, 8 / 12, 1, 4 / 12, 6 / 12, 2 / 12, 3 / 12]
FP4 += [-value for value in FP4]


def four_bit(shape: tuple[int, int], kind: str, nested: bool, changes: dict[str, Any] | None = None) -> Stored:
    """Store random 4-bit codes as bitsandbytes does, the first of each byte in the high half.

    `changes` spoil the JSON that describes the weight.
    """
    size = 64
    random = np.random.default_rng(0)
    table = np.array(NF4 if kind == "nf4" else FP4, dtype=np.float32)
    count = shape[0] * shape[1]
    codes = random.integers(0, 16, count + count % 2)
    blocks = -(-count // size)
    state: dict[str, Any] = {"quant_type": kind, "blocksize": size, "dtype": "float32", "shape": list(shape)}
    ends = {}
    absmax = random.uniform(0.1, 1, blocks).astype(np.float32)
    if nested:
        inner, places = random.uniform(-1, 1, 256).astype(np.float32), random.integers(0, 256, blocks)
        outer, offset = random.uniform(0.1, 1, -(-blocks // 8)).astype(np.float32), np.float32(0.7)
        absmax = np.array([inner[place] * outer[block // 8] + offset for block, place in enumerate(places)])
        state |= {"nested_blocksize": 8, "nested_dtype": "float32", "nested_offset": float(offset)}
        ends = {"absmax": places.astype(np.uint8), "nested_absmax": outer, "nested_quant_map": inner}
    flat = [table[code] * absmax[place // size] for place, code in enumerate(codes[:count])]
    text = json.dumps(state | (changes or {})).encode()
    ends = {"absmax": absmax} | ends | {"quant_map": table}
    stored = {f".weight.{end}": torch.from_numpy(each) for end, each in ends.items()}
    stored[".weight"] = torch.tensor([high << 4 | low for high, low in codes.reshape(-1, 2).tolist()]).byte()[:, None]
    stored[f".weight.quant_state.bitsandbytes__{kind}"] = torch.tensor(list(text)).byte()
    return stored, np.array(flat, dtype=np.float32).reshape(shape)
