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
from lossprobe.compiler import llvmlite, with_wide_vectors
from lossprobe.scoring import kernels, ladder_kernels

NORMAL = float(exponential.LEAST)
LOGITS = arrays.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.one_of(
        st.floats(-50, 50, width=32),
        st.sampled_from([0.0, 1.0, -math.inf]),  # so that there are ties and masked ones
    ),
)


def exponentials(values):
    """Return what the kernel makes of values up to 0, block by block."""
    values = np.asarray(values, np.float32)
    out = np.empty_like(values)
    for start in range(0, len(values), kernels.BLOCK):
        here = slice(start, start + kernels.BLOCK)
        kernels._weigh(values[here], np.float32(0.0), out[here])
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


def powers_of_two(values, factor=1.0):
    """Return what the ladder's loop makes of values · factor up to 0."""
    values = np.asarray(values, np.float32)
    out = np.empty_like(values)
    ladder_kernels._powers(values, np.float32(factor), out)
    return out


def test_powers_of_two_are_those_of_float64_to_a_float32():
    values = np.concatenate([np.linspace(-126.0, 0.0, 200_001), -np.logspace(-30, 2.1, 5_000)]).astype(np.float32)
    expected = np.exp2(values.astype(np.float64))
    assert np.abs(powers_of_two(values) / expected - 1.0).max() < 7.5e-8
    assert abs((powers_of_two(values) / expected - 1.0).mean()) < 2e-9
    assert powers_of_two(np.arange(-126, 1)).tolist() == [2.0**n for n in range(-126, 1)]
    assert powers_of_two([0.0, -0.0]).tolist() == [1.0, 1.0]
    assert math.isnan(powers_of_two([math.nan])[0])


@pytest.mark.parametrize("factor", [0.25, 2**-0.25, 1.0, 1.3])
def test_powers_of_two_of_a_multiple(factor):
    values = np.linspace(-90, 0, 30_001).astype(np.float32)
    expected = np.exp2(values.astype(np.float64) * np.float64(np.float32(factor)))
    rounded = 0.0 if "fma" in processor_features() else 120 * 4.2e-8  # without it the product is rounded
    assert np.abs(powers_of_two(values, factor) / expected - 1.0).max() < 7.5e-8 + rounded


def processor_features():
    """Return what this processor has."""
    found = llvmlite.binding.get_host_cpu_features()
    return {name for name, there in found.items() if there} | ({"fma"} if found.get("neon") else set())


@given(LOGITS, st.integers(0, 10**6))
@settings(max_examples=200)
def test_what_is_counted_and_found_is_exact(z, pick):
    value = z[pick % len(z)]
    top_id = int(np.argmax(z))
    second = np.delete(z, top_id).max(initial=-np.inf)
    expected = (z.max(), top_id, second, (z > value).sum(), (z == value).sum(), (z == -np.inf).sum())
    assert kernels._visit(z, value) == expected


@pytest.mark.parametrize("size", [1, 63, 64, 65, 2047, 2048, 2049, 5000])
def test_what_is_counted_and_found_where_blocks_meet(size):
    generator = np.random.default_rng(size)
    for at in {0, size // 2, size - 1, min(size - 1, kernels.VISITED)}:
        z = np.round(generator.standard_normal(size) * 4).astype(np.float32)  # many ties
        z[generator.integers(size, size=size // 9)] = -np.inf
        z[generator.integers(size, size=size // 50)] = np.nan  # skipped
        z[at] = 20.0
        value = z[generator.integers(size)]
        second = np.fmax.reduce(np.delete(z, at), initial=-np.inf)
        expected = (20.0, at, second, (z > value).sum(), (z == value).sum(), (z == -np.inf).sum())
        assert kernels._visit(z, value) == expected
    nothing = np.full(size, np.nan, np.float32)
    assert kernels._visit(nothing, nothing[0]) == (-np.inf, 0, -np.inf, 0, 0, 0)


@given(LOGITS.filter(lambda z: z.max() > -math.inf))
@settings(max_examples=100)
def test_sums_are_those_of_float64(z):
    top, top_id = z.max(), int(np.argmax(z))
    weight = np.empty_like(z)
    sums = kernels._weigh_row(z, top, top_id, weight)
    s = np.where(z == -np.inf, 0.0, z - top).astype(np.float64)  # rounded to float32, as it is for each exponential
    w = np.where(z == -np.inf, 0.0, np.exp(s))
    np.testing.assert_allclose(weight, w, rtol=1e-7, atol=1e-37)
    other = np.arange(len(z)) != top_id
    expected = (w[other].sum(), (w * s)[other].sum(), (w * w)[other].sum(), s.sum())
    np.testing.assert_allclose(sums, expected, rtol=1e-6, atol=1e-34)  # small squares count as 2^-124
    line = (top, np.float32(-1.5), np.float32(121.0), np.float32(0.0))
    spread = kernels._fill_bins(z, weight, line, 0, np.zeros((3, 121)))
    np.testing.assert_allclose(spread, (w * (s + 1.5) ** 2).sum(), rtol=1e-6)


@pytest.mark.parametrize("size", [1, 127, 128, 129, 1000, 1024])
def test_every_entry_is_added_to_its_bin(size):
    generator = np.random.default_rng(size)
    z = (-40 * generator.random(size)).astype(np.float32)
    weight = generator.random(size).astype(np.float32)
    for target in (0, size // 2, size - 1):
        bins = np.zeros((3, 31))
        line = (np.float32(0.0), np.float32(0.0), np.float32(31.0), np.float32(1.0))
        kernels._fill_bins(z, weight, line, target, bins)
        place = np.clip(31 + z, 0, 30).astype(int)
        assert bins[0].tolist() == np.bincount(place, minlength=31).tolist()
        np.testing.assert_allclose(bins[1], np.bincount(place, weight, 31), rtol=1e-14)
        assert bins[2].nonzero()[0].tolist() == [place[target]]


@given(arrays.arrays(np.float32, st.integers(1, 2000), elements=st.floats(2.0**-126, 1.0, width=32)))
@settings(max_examples=100)
def test_power_sums_are_those_of_float64(power):
    power[0] = 1.0
    expected = [(power.astype(np.float64) ** (2**step)).sum() for step in range(ladder_kernels.OCTAVES)]
    np.testing.assert_allclose(ladder_kernels._power_sums(power), expected, rtol=3e-6)


def test_what_is_far_below_the_top_shows_in_no_power_sum():
    """They count as more than they are: smaller numbers are no normal float32."""
    power = np.full(1_000_000, 2.0**-126, np.float32)
    assert max(ladder_kernels._power_sums(power)) < 1e-12


def test_the_loops_leave_the_number_of_threads_as_it_was():
    code = (
        "import torch\n"
        "from lossprobe.scoring.compiled import compile_loops\n"
        "before = torch.get_num_threads()\n"
        "for _ in range(2):\n"
        "    compile_loops()\n"
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
        "loop = numba.njit(kernels._weigh.py_func, fastmath=kernels.REORDERED)\n"
        "loop.compile('UniTuple(float32, 4)(float32[::1], float32, float32[::1])')\n"
        "print(loop.inspect_asm(loop.signatures[0]).count('zmm'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10
