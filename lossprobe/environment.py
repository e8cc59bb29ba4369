"""Removes environment variables that configure libraries, and settles threads and memory of a process of our own.

Such variables can change the arithmetic, switch checks off, name folders from which code is loaded, or make a library
print into the results.
"""

from __future__ import annotations

import os
import re

from lossprobe.allocation import settle_memory
from lossprobe.processors import settle_threads

# Prefixes of names. Variables for threads, devices and memory are kept: they decide only how fast a run is, and where.
CONFIGURATION = (
    "ACCELERATE_", "ARROW_", "ATEN_", "BLIS_", "CUBLAS_EMULAT", "DNNL_", "DUCKDB_", "FBGEMM_", "FLASH_ATTENTION_",
    "FSDP_", "HF_", "HUGGING_FACE_", "HUGGINGFACE_", "LLVMLITE_", "MATPLOTLIB", "MKLDNN_", "MKL_", "MPL", "NPY_",
    "NUMBA_", "NUMEXPR_", "NUMPY_", "NVIDIA_TF32_", "ONEDNN_", "OPENBLAS_", "PANDAS_", "PYTORCH_", "SCIPY_",
    "TOKENIZERS_", "TORCH", "TRANSFORMERS_", "TRITON_", "USE_FLAX", "USE_HUB_KERNELS", "USE_TF", "USE_TORCH", "XLA_",
)  # fmt: skip
KEPT = ("_NUM_THREADS", "_ALLOC_CONF", "_MPS_FALLBACK")
SIZE_OF_TERMINAL = ("COLUMNS", "LINES")  # rich fails on Unicode digits such as "²"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def settle_environment() -> list[str]:
    """Remove the variables before a library is imported, forbid network access, and return the removed names."""
    unused = sorted(
        name
        for name in os.environ
        if (name.startswith(CONFIGURATION) and not name.endswith(KEPT) and name not in OFFLINE)
        or (name in SIZE_OF_TERMINAL and not re.fullmatch("[0-9]{0,6}", os.environ[name]))
    )
    for name in unused:
        del os.environ[name]
    os.environ.update(OFFLINE)
    settle_threads()
    settle_memory()
    return unused
