"""Recognise stored tensors that are not weights: causal masks, rotary tables, position numbers.

Old releases saved such constants beside the weights. A tensor counts as a constant only if its name is one that no
parameter has and its values follow from the configuration. With other values it may be a trained weight, or the
configuration may describe another model, so it must not be left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch

MASK_NAME: Final = re.compile(r"(.*\.)?(attn|attention|self_attn|self_attention)\.(bias|mask)|(.*\.)?causal_mask")
CONSTANT_NAME: Final = re.compile(
    MASK_NAME.pattern
    + r"|(.*\.)?(masked_bias|mask_value|(\w+_)?inv_freq|(cos|sin)(_cached)?|embed_positions|position_ids|token_type_ids"
    r"|version|_float_tensor)"
)
MASKED = -9000.0  # at or below this a value means "masked": -1e4 (in bfloat16 -9984), -1e9, a dtype's minimum
ANGLE_ERROR = 2e-3  # absolute error of sines and cosines of large angles in float32


@dataclass(frozen=True)
class Constants:
    """The values that the constants of one model can have.

    Attributes:
        buffers: the model's buffers (its tensors that are not parameters), by name.
        bases: bases of rotary frequencies in the configuration (rope_theta).
        windows: widths of local attention in the configuration, in tokens.
    """

    buffers: Mapping[str, torch.Tensor] = field(default_factory=dict)
    bases: tuple[float, ...] = (10000.0,)
    windows: tuple[int, ...] = ()

    def holds(self, name: str, tensor: torch.Tensor) -> bool:
        """Return whether a stored tensor that is not a parameter has the name and the values of a constant."""
        if any(_alike(tensor, own) for path, own in self.buffers.items() if _same_place(name, path)):
            return True
        if CONSTANT_NAME.fullmatch(name) is None:
            return False
        last = name.rpartition(".")[2]
        if last in {"masked_bias", "mask_value"}:
            return tensor.numel() == 1 and float(tensor) <= MASKED
        if last in {"version", "_float_tensor"}:  # saved by fairseq: one number each, never used
            return tensor.numel() == 1
        if last in {"position_ids", "token_type_ids"}:
            return _counts_up(tensor) if last == "position_ids" else not bool(tensor.any())
        if MASK_NAME.fullmatch(name):
            return is_causal_mask(tensor, self.windows)
        if last.endswith("inv_freq"):
            return any(_close(tensor, table, 1e-5) for table in self._frequencies(tensor.numel()))
        return self._is_rotary_table(tensor)

    def _frequencies(self, count: int) -> Iterator[torch.Tensor]:
        """Yield the rotary frequencies, float64 [count], of the model's buffers and of the configuration's bases.

        A base b gives b^(−i/count) for i = 0 … count − 1 (Su et al. 2021, RoFormer).
        """
        for name, buffer in self.buffers.items():
            if name.endswith("inv_freq") and buffer.numel() == count:
                yield buffer.flatten().double()
        for base in self.bases:
            yield base ** -(torch.arange(count, dtype=torch.float64) / count)

    def _is_rotary_table(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor [..., length, width] holds cosines or sines of positions times frequencies."""
        if tensor.dim() < 2 or tensor.shape[-2] * tensor.shape[-1] != tensor.numel() or tensor.shape[-1] % 2:
            return False
        length, width = tensor.shape[-2:]
        table = tensor.reshape(length, width)
        place = torch.arange(length, dtype=torch.float64)[:, None]
        for count in (width, width // 2):
            for frequencies in self._frequencies(count):
                angles = place * frequencies
                cos, sin = angles.cos(), angles.sin()
                pairs = [(cos, cos), (sin, sin), (sin, cos), (cos, sin)]
                tables = [cos, sin] if count == width else [torch.cat(pair, dim=-1) for pair in pairs]
                if any(_close(table, each, 0.0, ANGLE_ERROR) for each in tables):
                    return True
        return False


def constants_of(model: Any) -> Constants:
    """Return the values that the constants of a transformers model can have."""
    config = model.config.to_dict()
    bases = {float(value) for value in _values(config, "rope_theta")} | {
        float(value) for value in _values(config, "rotary_emb_base")
    }
    windows = {int(value) for value in _values(config, "window_size")}
    buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.device.type != "meta"}
    return Constants(buffers, tuple(sorted(bases or {10000.0})), tuple(sorted(windows)))


def is_causal_mask(tensor: torch.Tensor, windows: tuple[int, ...] = ()) -> bool:
    """Return whether a tensor [1, ..., n, n] is a causal attention mask in one of the usual forms.

    The forms: 1 at visible positions and 0 at others, the reverse, or 0 at visible and very negative at others.

    Args:
        tensor: the stored tensor.
        windows: widths of local attention; a mask limited to one of them counts too.
    """
    if tensor.dim() < 2 or tensor.shape[-1] != tensor.shape[-2] or tensor.shape[-1] ** 2 != tensor.numel():
        return False
    side = tensor.shape[-1]
    square = tensor.reshape(side, side)
    causal = torch.ones(side, side, dtype=torch.bool).tril()
    forms = [causal, *(causal & ~causal.tril(-width) for width in windows)]
    if bool(((square == 0) | (square == 1)).all()):
        marked = square != 0
        return any(torch.equal(marked, form) or (side > 1 and torch.equal(marked, ~form)) for form in forms)
    low = square <= MASKED
    return any(torch.equal(low, ~form) and not bool(square[form].any()) for form in forms)


def _same_place(name: str, path: str) -> bool:
    """Return whether two tensor names are equal, or one is the other behind a prefix such as the body's name."""
    return name == path or name.endswith(f".{path}") or path.endswith(f".{name}")


def _alike(tensor: torch.Tensor, own: torch.Tensor) -> bool:
    """Return whether a stored tensor equals a model's buffer, up to rounding and the dtype of integers and masks."""
    if tensor.shape != own.shape:
        return False
    if tensor.is_floating_point() and own.is_floating_point():
        return _close(tensor, own.double(), 1e-5, ANGLE_ERROR)
    return torch.equal(tensor.to(own.dtype), own) and torch.equal(tensor.to(own.dtype).to(tensor.dtype), tensor)


def _counts_up(tensor: torch.Tensor) -> bool:
    """Return whether a tensor [1, ..., n] holds 0, 1, ..., n - 1."""
    flat = tensor.flatten()
    return tensor.dim() > 0 and tensor.shape[-1] == len(flat) and torch.equal(flat, torch.arange(len(flat)).to(flat))


def _close(tensor: torch.Tensor, wanted: torch.Tensor, relative: float, absolute: float = 0.0) -> bool:
    """Return whether a floating-point tensor equals the wanted values, up to rounding in its own dtype."""
    if not tensor.is_floating_point() or tensor.numel() != wanted.numel():
        return False
    info = torch.finfo(tensor.dtype)
    stored = tensor.double().reshape(wanted.shape)
    return torch.allclose(
        stored, wanted, rtol=max(relative, 2 * info.eps), atol=max(absolute, float(info.smallest_normal) * info.eps)
    )


def _values(config: Mapping[str, Any], key: str) -> Iterator[float]:
    """Yield the numbers that a configuration holds under `key`, nested dictionaries included."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _values(value, key)
        elif name == key and isinstance(value, int | float):
            yield value
