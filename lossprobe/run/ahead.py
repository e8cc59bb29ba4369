"""Reads ahead: a thread takes the next item of an iterator while its caller works on the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, none of which is None, in their order; one more than was asked for is taken, in a thread.

    An error of the iterator is raised where its item would be.

    >>> list(read_ahead([3, 1, 2]))
    [3, 1, 2]
    """
    source = iter(items)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(next, source, None)
        while (item := ahead.result()) is not None:
            ahead = pool.submit(next, source, None)
            yield item
