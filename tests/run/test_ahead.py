"""Items that a thread takes ahead are the iterator's own, in its order, with its errors."""

import threading

import pytest

from lossprobe.run.ahead import read_ahead


def test_one_item_is_taken_ahead_in_another_thread():
    taken, threads = [], set()

    def items():
        for item in range(4):
            taken.append(item)
            threads.add(threading.get_ident())
            yield item

    ahead = read_ahead(items())
    assert next(ahead) == 0
    ahead.close()  # ends the thread when it has taken the next one
    assert taken == [0, 1]
    assert list(read_ahead(items())) == [0, 1, 2, 3]
    assert threading.get_ident() not in threads


def test_an_error_comes_in_the_place_of_its_item():
    def items():
        yield "first"
        raise OSError("damaged")

    ahead = read_ahead(items())
    assert next(ahead) == "first"
    with pytest.raises(OSError, match="damaged"):
        next(ahead)
