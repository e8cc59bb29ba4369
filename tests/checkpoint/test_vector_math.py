"""MKL chooses its code for element-wise functions in one thread, before any pass of a model.

The race itself shows only on Intel processors, and not every time. So most tests look at which functions are called,
with how many entries, and when; one makes it happen each time.
"""

import platform
import re
from pathlib import Path

import pytest
import torch
from checkpoint import vector_math_race
from fakes import SmallModel, checkpoint
from torch.utils._python_dispatch import TorchDispatchMode

import lossprobe
from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.families.callable import CallableCheckpoint
from lossprobe.checkpoint.model.vector_math import FUNCTIONS, settle_vector_math

HEADER = Path(torch.__file__).parent / "include" / "ATen" / "cpu" / "vml.h"
SHARED_FROM = 2048  # entries from which torch divides a tensor among threads, at the least


class Calls(TorchDispatchMode):
    """Keeps the name, dtype and number of entries of each operation on a single tensor."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        first = args[0] if args else None
        if isinstance(first, torch.Tensor):
            self.seen.append((function.overloadpacket.__name__, first.dtype, first.numel()))
        return function(*args, **(kwargs or {}))


def settled():
    """Return the calls that settle the functions: each name with both dtypes."""
    return {(each.__name__, dtype) for each in FUNCTIONS for dtype in (torch.float32, torch.float64)}


def test_each_function_that_torch_gives_to_mkl_is_called():
    given = set(re.findall(r"^IMPLEMENT_VML_MKL\((\w+), \w+\)", HEADER.read_text(), re.MULTILINE))
    assert {each.__name__ for each in FUNCTIONS} == given


def test_no_call_is_divided_among_threads():
    with Calls() as calls:
        settle_vector_math()
    assert settled() <= {(name, dtype) for name, dtype, _ in calls.seen}
    assert max(entries for _, _, entries in calls.seen) < SHARED_FROM


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_they_are_called_before_the_first_pass_of_a_model(family_paths, family):
    with Calls() as calls:
        open_checkpoint(family_paths[family])
    names = [name for name, _, _ in calls.seen]
    assert settled() <= {(name, dtype) for name, dtype, _ in calls.seen[: names.index("embedding")]}


def test_they_are_called_before_a_function_of_the_user_is():
    with Calls() as calls:
        CallableCheckpoint(lambda ids: ids, None, vocab_size=3)
    assert settled() <= {(name, dtype) for name, dtype, _ in calls.seen}


class OfOwnClass:
    """A checkpoint that no class of lossprobe made, as a user may write one."""

    def __init__(self, made):
        self.facts, self.tokenizer, self.hidden, self.logits = made.facts, made.tokenizer, made.hidden, made.logits


def test_they_are_called_before_the_first_pass_of_an_object_of_a_users_class(tmp_path):
    given = OfOwnClass(checkpoint(SmallModel()))
    (tmp_path / "text.txt").write_text("one text")
    with Calls() as calls:
        lossprobe.score(given, tmp_path / "text.txt", output=tmp_path / "run")
    names = [name for name, _, _ in calls.seen]
    assert settled() <= {(name, dtype) for name, dtype, _ in calls.seen[: names.index("cumsum")]}


@pytest.mark.thorough
@pytest.mark.skipif(vector_math_race.COMPILER is None, reason="needs a C compiler")
@pytest.mark.skipif((platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="MKL is for x86-64")
def test_the_first_call_from_two_threads_is_accurate_once_they_are_called(tmp_path):
    library = vector_math_race.build(tmp_path)
    assert vector_math_race.differing(library, settled=False) == ["acos torch.float32"]  # the first call of them
    assert vector_math_race.differing(library, settled=True) == []
