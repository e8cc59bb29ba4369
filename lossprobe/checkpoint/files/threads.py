"""Work on many tensors or files at once, one in each thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")


def of_each(work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """Return what a function returns for each item, in order; as many are worked on at once as torch has threads.

    The functions of torch then use one thread each: tensors are too small to be divided well, and many of the functions
    that unpack them are not divided at all.

    Raises:
        Exception: what the function raises for the first item for which it does.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(item) for item in items]
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)
