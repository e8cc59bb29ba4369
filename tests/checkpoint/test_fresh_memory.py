"""Memory that is asked for at once is as any other."""

import resource
import sys

import pytest
import torch

from lossprobe.checkpoint.files import fresh_memory


@pytest.mark.parametrize("shape", [(), (3, 5), (1 << 18,), (1000, 1001), (7, 1 << 18)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_it_has_the_shape_and_holds_what_is_written(shape, dtype):
    tensor = fresh_memory.empty(*shape, dtype=dtype)
    assert (tuple(tensor.shape), tensor.dtype, tensor.is_contiguous()) == (shape, dtype, True)
    tensor.fill_(7)
    assert bool((tensor == 7).all())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives pages before they are written")
def test_pages_are_there_before_the_first_write():
    def faults():
        return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt

    tensor = fresh_memory.empty(1 << 24)  # 64 MiB, 16,384 pages
    before = faults()
    tensor.numpy()[:] = 1.0  # in this thread
    assert faults() - before < 1000


def test_a_system_that_does_not_know_of_it_costs_nothing_but_speed(monkeypatch):
    monkeypatch.setattr(fresh_memory, "MADV_POPULATE_WRITE", 12345)  # refused, as by an older Linux
    assert fresh_memory.empty(1 << 20).fill_(2).sum() == 2 << 20
    monkeypatch.setattr(sys, "platform", "darwin")
    assert fresh_memory.empty(1 << 20).fill_(2).sum() == 2 << 20
