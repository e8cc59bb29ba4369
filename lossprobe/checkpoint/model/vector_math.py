"""Calls the element-wise functions of torch once from one thread, before any model does from several.

On an Intel processor torch computes them by MKL, which chooses the code for a function at its first call. Where several
threads make that call together, one of them can run code of low accuracy for its share of the tensor, once: in the
first pass of GPT-2, half of the outputs of the first activation were 5e-5 off and the logits 4e-5, in place of 3e-6
(torch 2.13; pytorch/pytorch#188792). The same pass afterwards gives other results, so that a sound model looked as if
it changed from pass to pass.
"""

from __future__ import annotations

from typing import Final

import torch

# The functions that torch hands to MKL (`ATen/cpu/vml.h`).
FUNCTIONS: Final = (
    *(torch.acos, torch.asin, torch.atan, torch.cos, torch.erf, torch.erfc, torch.erfinv, torch.exp, torch.log),
    *(torch.log10, torch.log2, torch.sin, torch.sqrt, torch.tan, torch.tanh, torch.trunc),
)
DTYPES: Final = (torch.float32, torch.float64)
ENTRIES: Final = 16  # torch divides a tensor among threads from some thousands on


def settle_vector_math() -> None:
    """Let MKL choose its code for each element-wise function, in this thread alone; later calls change nothing."""
    for dtype in DTYPES:
        values = torch.full((ENTRIES,), 0.5, dtype=dtype)  # all of the functions are defined there
        for function in FUNCTIONS:
            function(values)
