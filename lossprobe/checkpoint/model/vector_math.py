"""Calls the element-wise functions of torch once from one thread, before any model does from several.

On an Intel processor torch computes them by MKL, which chooses their code by the kind of processor that it notes at the
first call of any of them: first the number that its detection gives, and at once over it the one by which it chooses.
Where several threads make that call together, one of them can read the first of the two, which stands for code of low
accuracy, and run that for its share of the tensor, once: in the first pass of GPT-2, half of the outputs of the first
activation were 5e-5 off and the logits 4e-5, in place of 3e-6 (torch 2.13; pytorch/pytorch#188792). The same pass
afterwards gives other results, so that a sound model looked as if it changed from pass to pass. On other processors the
two numbers are the same.
"""

from __future__ import annotations

from typing import Final

import torch

# The functions that torch hands to MKL (`ATen/cpu/vml.h`): all, since that one call is enough is not documented.
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
