"""The benchmark of a GPU, tried out on a CPU: it must not fail on the first GPU that it gets."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
MODELS = ("gpt2", "llama-1b", "llama-8b")
WITHOUT = """
import importlib, runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite", "duckdb", "ftfy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def lines_of(program, tmp_path, *options, **environment):
    """Run the benchmark with tiny models, and return its results by step."""
    file = tmp_path / "results.jsonl"
    command = [sys.executable, *program, str(BENCHMARK), "--device", "cpu", "--tiny", "--out", str(file), *options]
    process = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path
    )
    assert file.read_text("utf-8") == process.stdout
    found = {}
    for line in map(json.loads, process.stdout.splitlines()):
        found.setdefault(line["step"], []).append(line)
    return found


@pytest.mark.thorough
def test_every_step_runs(tmp_path):
    found = lines_of([], tmp_path, TRITON_INTERPRET="1")
    assert [line for lines in found.values() for line in lines if "error" in line] == []
    assert set(MODELS) <= set(found)
    assert [line["score_over_bare"] > 0 for line in found["speed"]] == [True] * 3
    assert all(line["histogram"] and line["columns"] and line["ladder"] for line in found["repeats"])
    assert all(line["within_rounding"] for line in found["agreement"])
    assert found["whole"][0]["pass_2"]["tokens_per_s"] > 0
    if importlib.util.find_spec("triton") is None:
        assert {line["skipped"] for line in found["kernel"]} == {"Triton is not installed"}
        return
    for line in found["kernel"]:
        assert line["histogram_repeats"]
        assert line["histogram_of_other_order"]
        assert line["entries_counted_once"]
        assert line["fused_apart"]["rank"] == 0
        assert line["fused_apart"]["loss_nats"] < 1e-6
    assert all(line["us_per_row"] > 0 for line in found["variant"])


@pytest.mark.thorough
def test_without_libraries_all_but_the_whole_pass_runs(tmp_path):
    found = lines_of(["-c", WITHOUT], tmp_path, "--steps", "gpt2,whole,machine")
    assert "numba" in found["imports"][0]["without"]
    assert "error" not in found["gpt2"][0]
    assert found["speed"][0]["score_over_bare"] > 0
    assert "error" in found["whole"][0]
    assert "torch" in found["machine"][0]


@pytest.mark.thorough
def test_without_time_left_steps_are_skipped(tmp_path):
    found = lines_of([], tmp_path, "--seconds", "0.5")
    assert {name for name, (line, *_) in found.items() if "skipped" in line} == {
        "machine", "kernels", *MODELS, "variants", "whole",
    }  # fmt: skip
