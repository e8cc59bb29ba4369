"""All passes run the same code: that of a process which had to compile the loops, and that of the next one."""

import os
import subprocess
import sys

import pytest
from bundled import CHECKPOINT

from lossprobe.cli.main import COMPILING

CODE = """
import hashlib, sys, torch
from lossprobe.checkpoint.model.attention import causal_attention
from lossprobe.compiling import tell_of_compiling
from lossprobe.scoring import compiled
from lossprobe.scoring.histogram import HistogramBins
from lossprobe.scoring.statistics import Workspace

torch.manual_seed(0)
logits, targets = 5 * torch.randn(64, 512), torch.arange(64)
told = []
with tell_of_compiling(lambda: told.append("told")):
    sampled = torch.ones(64, dtype=torch.bool)
    rows = [logits, 5 * torch.randn(64, compiled.LEAST_COUNTED).bfloat16()]
    several = [compiled.measure_rows(each, targets, sampled, HistogramBins(), Workspace()) for each in rows]
    attended = causal_attention(*logits[:48].view(3, 1, 2, 256, 16))
found = [part for each in several for part in (each.statistics.entropy_nats, each.histogram, each.ladder)]
bits = b"".join(each.contiguous().numpy().tobytes() for each in (*found, attended))
print(hashlib.sha256(bits).hexdigest(), *told)
"""


@pytest.mark.thorough  # compiles all loops, for 20 s
def test_the_first_pass_gives_the_bits_of_the_next(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    printed = [
        subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, check=True, text=True).stdout
        for _ in range(2)
    ]
    first, second = (words.split() for words in printed)
    assert first == [second[0], "told"]
    assert len(second) == 1, "the loops are on disk"


@pytest.mark.thorough
def test_a_command_says_once_that_it_compiles_for_the_model_and_for_the_pass(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("One day a little fox ran to the river.\n" * 20)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    score = [sys.executable, "-m", "lossprobe", "score", str(CHECKPOINT), str(text)]
    for name, told, more in (("a", 1, []), ("b", 0, []), ("c", 0, ["--quiet"])):
        command = [*score, "-o", str(tmp_path / name), *more]
        errors = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stderr
        assert errors.splitlines().count(f"lossprobe: {COMPILING}") == told
