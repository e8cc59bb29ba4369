"""Every error id with its exit code: what is wrong and what to do, one module a group of ids."""

from __future__ import annotations

from lossprobe.terms.error_ids import (
    adapter,
    audit,
    checkpoint,
    general,
    ray,
    runs,
    template,
    tensor_parallel,
    text,
    tokenizer,
)

ERROR_IDS = (
    *general.ERROR_IDS,
    *text.ERROR_IDS,
    *checkpoint.ERROR_IDS,
    *adapter.ERROR_IDS,
    *tokenizer.ERROR_IDS,
    *template.ERROR_IDS,
    *runs.ERROR_IDS,
    *audit.ERROR_IDS,
    *ray.ERROR_IDS,
    *tensor_parallel.ERROR_IDS,
)
