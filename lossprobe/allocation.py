"""Settles how much freed memory a process keeps for what it allocates next."""

from __future__ import annotations

import ctypes
import os
import re

# Numbers of two settings of glibc's `mallopt`, and their values in bytes.
TRIM, MAPPED = -1, -3
KEPT_BYTES = 256 << 20
MAPPED_BYTES = 32 << 20  # the most to which glibc itself raises it
# What sets the same two, or the room that glibc leaves when it gives memory back.
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
CHOSEN_TUNABLE = re.compile(r"(?:^|:)glibc\.malloc\.(?:trim_threshold|mmap_threshold|top_pad)=")


def settle_memory() -> None:
    """Let glibc keep up to 256 MiB of freed memory, and give larger pieces than 32 MiB back at once.

    By itself it gives back what is free at the end of its memory once that is about twice the largest piece, so that
    each layer of a pass gets new pages, which the system fills with zeros: up to a seventh of the time of a pass with a
    small model, and more where other processes do the same. What the user has set of it stands; other libraries than
    glibc are left alone.
    """
    if any(name in os.environ for name in CHOSEN) or CHOSEN_TUNABLE.search(os.environ.get("GLIBC_TUNABLES", "")):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    mallopt(TRIM, KEPT_BYTES)
    mallopt(MAPPED, MAPPED_BYTES)
