"""The compiled loops one by one, against numpy in float64 and against plain Python."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lossprobe import exponential
from lossprobe.compiler import with_wide_vectors
from lossprobe.scoring import kernels

NORMAL = float(exponential.LEAST)
LOGITS = arrays.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.one_of(
        st.floats(-50, 50, width=32),
        st.sampled_from([0.0, 1.0, -math.inf]),  # so that there are ties and masked ones
    ),
)


def exponentials(values, factor=1.0):
    """Return what the kernel makes of values up to 0, block by block."""
    values = np.asarray(values, np.float32)
    out = np.empty_like(values)
    for start in range(0, len(values), kernels.BLOCK):
        here = slice(start, start + kernels.BLOCK)
        kernels._exponentials(values[here], np.float32(0.0), np.float32(factor), out[here])
    return out


def test_exponentials_are_those_of_float64_to_a_float32():
    values = np.concatenate([np.linspace(NORMAL, 0.0, 200_001), -np.logspace(-30, 1.9, 5_000)]).astype(np.float32)
    expected = np.exp(values.astype(np.float64))
    assert np.abs(exponentials(values) / expected - 1.0).max() < 8e-8
    # Their errors cancel in a sum: none of them leans to one side.
    assert abs((exponentials(values) / expected - 1.0).mean()) < 2e-9


def test_exponentials_at_the_edges():
    values = [0.0, -0.0, NORMAL, NORMAL - 1e-3, -1e4, -math.inf]
    assert exponentials(values).tolist() == [1.0, 1.0, pytest.approx(math.exp(NORMAL), rel=1e-7), 0.0, 0.0, 0.0]
    assert math.isnan(exponentials([math.nan])[0])


def powers_of_two(values):
    """Return what the kernel makes of values up to 0, block by block."""
    values = np.asarray(values, np.float32)
    out = np.empty_like(values)
    for start in range(0, len(values), kernels.BLOCK):
        here = slice(start, start + kernels.BLOCK)
        kernels._powers_of_two(values[here], np.float32(0.0), np.float32(1.0), out[here])
    return out


def test_powers_of_two_are_those_of_float64_to_a_float32():
    values = np.concatenate([np.linspace(-126.0, 0.0, 200_001), -np.logspace(-30, 2.1, 5_000)]).astype(np.float32)
    expected = np.exp2(values.astype(np.float64))
    assert np.abs(powers_of_two(values) / expected - 1.0).max() < 7.5e-8
    assert abs((powers_of_two(values) / expected - 1.0).mean()) < 2e-9
    assert powers_of_two(np.arange(-126, 1)).tolist() == [2.0**n for n in range(-126, 1)]


def test_powers_of_two_at_the_edges():
    values = [0.0, -0.0, -126.0, -126.001, -1e4, -3e38, -math.inf]
    assert powers_of_two(values).tolist() == [1.0, 1.0] + 5 * [2.0**-126]
    assert math.isnan(powers_of_two([math.nan])[0])


@pytest.mark.parametrize("factor", [0.25, 2**-0.25, 1.0])
def test_exponentials_of_a_multiple(factor):
    values = np.linspace(-40, 0, 3001).astype(np.float32)
    expected = np.exp(values.astype(np.float64) * np.float64(np.float32(factor)))
    assert np.abs(exponentials(values, factor) / expected - 1.0).max() < 2.5e-6  # the product is rounded to float32


@given(LOGITS, st.integers(0, 10**6))
@settings(max_examples=200)
def test_what_is_counted_and_found_is_exact(z, pick):
    value = z[pick % len(z)]
    assert kernels._largest(z) == z.max()
    assert kernels._first(z, value) == z.tolist().index(value)
    expected = ((z > value).sum(), (z == value).sum(), (z == -np.inf).sum())
    assert tuple(map(int, kernels._compare(z, value))) == expected


@given(LOGITS.filter(lambda z: z.max() > -math.inf))
@settings(max_examples=100)
def test_sums_are_those_of_float64(z):
    weight = np.exp(z.astype(np.float64) - z.max()).astype(np.float32)
    top = np.float64(z.max())
    w, s = weight.astype(np.float64), np.where(z == -np.inf, 0.0, z.astype(np.float64) - top)
    expected = (w.sum(), (w * s).sum(), (w * w).sum(), s.sum())
    np.testing.assert_allclose(kernels._sums(z, weight, top), expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(kernels._spread(z, weight, top, -1.5), (w * (s + 1.5) ** 2).sum(), rtol=1e-12)
    powers = [np.maximum(w ** (2**step), 2.0**-126 if step else 0.0).sum() for step in range(kernels.OCTAVES)]
    np.testing.assert_allclose(kernels._power_sums(weight), powers, rtol=3e-6, atol=1e-37)


def test_the_loops_leave_the_number_of_threads_as_it_was():
    code = (
        "import torch\n"
        "from lossprobe.scoring import compiled\n"
        "before = torch.get_num_threads()\n"
        "for _ in range(2):\n"
        "    compiled.ladder_sums(torch.zeros((3, 7)), [1.0])\n"
        "    print(before, torch.get_num_threads())\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    assert process.stdout.split() == ["1", "1", "1", "1"]


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ("+avx2,+avx512f,-avx512er", "+avx2,+avx512f,-avx512er,-prefer-256-bit"),
        ("+avx2,-avx512f", "+avx2,-avx512f"),
        ("+neon", "+neon"),
        ("", ""),
    ],
)
def test_vectors_are_as_wide_as_those_of_the_processor(features, expected):
    assert with_wide_vectors(features) == expected


def test_loops_use_the_widest_vectors():
    """A process of its own, which compiles for an Intel processor whose vectors LLVM would halve."""
    code = (
        "from numba.core import config\nfrom lossprobe import compiler\nimport numba, numpy as np\n"
        "config.CPU_NAME = 'skylake-avx512'\n"
        "config.CPU_FEATURES = compiler.with_wide_vectors('+avx,+avx2,+fma,+avx512f,+avx512dq,+avx512bw,+avx512vl')\n"
        "from lossprobe.scoring import kernels\n"
        "loop = numba.njit(kernels._sums.py_func, fastmath=kernels.REORDERED)\n"
        "loop.compile('UniTuple(float64, 4)(float32[::1], float32[::1], float64)')\n"
        "print(loop.inspect_asm(loop.signatures[0]).count('zmm'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10
