"""Causal attention on a CPU by compiled loops, in place of torch's `scaled_dot_product_attention`.

torch's own takes about half of the time of a forward pass in bfloat16. It multiplies small matrices by a library that
is made for large ones: 57 of 490 GFLOP/s on a core of a Zen 5, where the loops reach 140 in float32. Scores and
probabilities are float32 whatever the dtype of the model, so results are at least as near to the exact ones.

Only attention of the plain causal kind is replaced, and only during a pass: a model's code calls the function of torch,
with whose arguments everything that it computes is said.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from lossprobe.checkpoint.model import attention_loops
from lossprobe.checkpoint.model.rounding import agree
from lossprobe.compiler import compile_apart, share_threads
from lossprobe.instructions import ROWS

COMPILE: Final = "from lossprobe.checkpoint.model.attention import compile_loops; compile_loops()"
DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
VECTORS: Final = ("AVX2", "AVX512")
LEAST: Final = 64  # shorter rows do not fill a block of the loops, and torch is faster
KIND: Final = "attention in blocks"  # in `CheckpointFacts.kernels`


class BlockedAttention(TorchFunctionMode):
    """Computes causal attention by the compiled loops while it is entered.

    Attributes:
        least: fewest tokens of a row for that.
        used: whether some attention was computed so.
    """

    def __init__(self, least: int = LEAST) -> None:
        super().__init__()
        self.least = least
        self.used = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, or the loops in its place."""
        options = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention or len(args) != 3:
            return func(*args, **options)
        query, key, value = args
        if query.shape[-2] < self.least or not is_plain_causal(query, key, value, options):
            return func(*args, **options)
        self.used = True
        return causal_attention(query, key, value, options.get("scale"))


Attention = BlockedAttention | nullcontext[None]  # what is entered for each pass of a model


def no_change() -> nullcontext[None]:
    """Return what leaves attention to torch."""
    return nullcontext()


def is_plain_causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: dict[str, Any]) -> bool:
    """Return whether arguments of torch's function ask for what `causal_attention` computes.

    Args:
        query: the queries.
        key: the keys.
        value: the values.
        options: the arguments given by name.
    """
    tensors = (query, key, value)
    if options.get("attn_mask") is not None or options.get("dropout_p") or not options.get("is_causal"):
        return False
    if any(each.dim() != 4 or each.device.type != "cpu" or each.dtype not in DTYPES for each in tensors):
        return False
    batch, heads, length, width = query.shape
    groups, end = value.shape[1], value.shape[3]
    return bool(
        len({each.dtype for each in tensors}) == 1
        and key.shape == (batch, groups, length, width)
        and value.shape == (batch, groups, length, end)
        and (heads == groups or (options.get("enable_gqa") and groups > 0 and heads % groups == 0))
        and min(batch, heads, width, end) > 0
        and end % ROWS == 0
    )


def causal_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None = None
) -> torch.Tensor:
    """Return Σ softmax(scale · q · k) v over the keys up to each query, [B, H, T, E] in the dtype of the query.

    Args:
        query: [B, H, T, D] on the CPU.
        key: [B, G, T, D], G a divisor of H.
        value: [B, G, T, E], E a multiple of `ROWS`.
        scale: factor of the scores; None for 1 / √D.
    """
    compile_apart(attention_loops.attend, COMPILE)
    return _causal_attention(query, key, value, scale)


def _causal_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None = None
) -> torch.Tensor:
    share_threads(torch.get_num_threads, torch.set_num_threads)
    rows, parts = zip(*(_side_by_side(each.transpose(1, 2).float()) for each in (query, key, value)), strict=True)
    batch, heads, length, width = query.shape
    out = torch.empty((batch, length, heads, value.shape[3]))
    factor = np.float32(width**-0.5 if scale is None else scale)
    attention_loops.attend(tuple(each.numpy() for each in rows), parts, factor, out.numpy())
    return out.to(query.dtype).transpose(1, 2)


def _side_by_side(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return a contiguous tensor [B, T, P, H, D], and as which of its P parts it holds x [B, T, H, D].

    GPT-2 computes queries, keys and values together, and these are parts of one tensor. All else is copied where it is
    not contiguous.
    """
    batch, length, heads, width = x.shape
    size, step, offset = heads * width, x.stride(1), int(x.storage_offset())  # of a part, of a token, of x: in numbers
    count = step // size
    if count > 1 and step % size == offset % size == 0 and x.stride() == (length * step, step, width, 1):
        part = offset // size % count
        start = offset - part * size
        if start + batch * length * step <= x.untyped_storage().nbytes() // x.itemsize:
            steps = length * step, step, size, width, 1
            return x.as_strided((batch, length, count, heads, width), steps, start), part
    return x.contiguous()[:, :, None], 0


def compile_loops() -> None:
    """Compile the loops in this process, so that their code is cached on disk."""
    rows = torch.zeros(1, 1, 1, ROWS)
    _causal_attention(rows, rows, rows)


def find_attention(
    run: Callable[[torch.Tensor], torch.Tensor],
    same: Callable[[torch.Tensor, torch.Tensor], bool],
    ids: torch.Tensor,
    dtype: torch.dtype,
) -> Attention:
    """Return what to enter for each pass of a model: blocked attention where it suits model and processor, or nothing.

    Args:
        run: maps ids [B, T] to results of the model [B, T, D].
        same: tells whether two results [N, D] differ by no more than rounding.
        ids: a probe.
        dtype: dtype of the model.
    """
    if not _is_faster(ids.device.type, dtype):
        return no_change()
    attention = BlockedAttention(least=1)
    before = run(ids).flatten(0, 1)
    with attention:
        after = run(ids).flatten(0, 1)
    return BlockedAttention() if attention.used and same(after, before) and is_exact() else no_change()


def is_exact() -> bool:
    """Return whether the loops give what torch gives for rows of several blocks."""
    rows = torch.sin(torch.arange(3 * 2 * 300 * 8, dtype=torch.float32)).view(3, 1, 2, 300, 8)
    query, key, value = rows
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return agree(causal_attention(query, key, value), expected)


def _is_faster(device_type: str, dtype: torch.dtype) -> bool:
    """Return whether the loops are the faster way; torch is, where it multiplies tiles of bfloat16 matrices (AMX)."""
    if device_type != "cpu" or torch.backends.cpu.get_cpu_capability() not in VECTORS:
        return False
    return dtype == torch.float32 or not torch.cpu._is_amx_tile_supported()
