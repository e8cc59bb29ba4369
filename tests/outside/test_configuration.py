"""A folder full of configuration for our libraries, and variables for them: not one byte of any result changes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bundled import CHECKPOINT, EXAMPLES

pytestmark = pytest.mark.thorough
SECONDS = 600
# Read by numba and matplotlib in the working folder, and by programs that people have there.
FILES = {
    ".numba_config.yaml": (
        "disable_jit: 1\ncache_dir: taken\nopt: '0'\ndebug_cache: 1\ncache_locator_classes: taken.Locator\n"
    ),
    "matplotlibrc": "text.usetex: True\nfont.size: 30\naxes.facecolor: red\nsavefig.facecolor: blue\n",
    "mpl/matplotlibrc": "axes.facecolor: green\n",
    ".env": "HF_HUB_OFFLINE=0\n",
    ".duckdbrc": "SELECT 1;\n",
    "pyproject.toml": "[tool.other]\n",
}
# These would be imported in place of the libraries.
MODULES = ("numba", "torch", "numpy", "matplotlib", "taken", "click", "typing", "yaml", "lossprobe_cli")
VARIABLES = {
    "NUMBA_DISABLE_JIT": "1",
    "NUMBA_CACHE_DIR": "taken",
    "NUMBA_CACHE_LOCATOR_CLASSES": "taken.Locator",
    "NUMBA_OPT": "0",
    "NUMBA_DEBUG_CACHE": "1",
    "MPLBACKEND": "module://taken",
    "MATPLOTLIBRC": ".",
    "MPLCONFIGDIR": "mpl",
    "HF_HUB_OFFLINE": "0",
    "HF_HOME": "hub",
    "TRANSFORMERS_VERBOSITY": "debug",
    "TOKENIZERS_PARALLELISM": "false",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
# For other arithmetic and for words among the results: a command takes these away, in Python they are the program's.
ARITHMETIC = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_VERBOSE": "1",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "ONEDNN_VERBOSE": "1",
    "NPY_DISABLE_CPU_FEATURES": "AVX2",
    "OPENBLAS_CORETYPE": "Nehalem",
    "PANDAS_FUTURE": "no such choice",
    "TORCH_LOGS": "+all",
}
RUN = ".lossprobe/one"
COMMANDS = [
    ["score", "MODEL", "text.jsonl", "-o", RUN],
    ["tokens", RUN, "--csv", "--plot", "--json"],
    ["tokens", RUN],
    ["positions", RUN, "--csv", "--plot", "--json"],
    ["hardest", RUN, "--csv", "--plot", "--table"],
    ["perplexity", RUN, "--csv", "--plot", "--markdown"],
    ["calibration", RUN, "--csv", "--plot", "--json"],
    ["objectives", RUN, "--csv", "--plot", "--json"],
    ["compare", RUN, "OTHER", "text.jsonl", "--csv", "--plot", "--json"],
    ["gap", "MODEL", "text.jsonl", "more.txt", "--context", "32", "--csv", "--plot", "--json"],
    ["perplexity", "MODEL", "text.jsonl", "--context", "32", "--protocol", "lm-eval", "--csv=p.csv", "--json"],
    ["selfcheck", "MODEL", "text.jsonl", "--csv", "--plot", "--json"],
    ["audit", "init", "MODEL", "text.jsonl"],
    ["baseline", "update"],
    ["baseline", "show"],
    ["audit", "--json", "--report", "junit:audit.xml", "--report", "markdown:audit.md"],
    ["audit", "--print-config"],
    ["inspect", "MODEL"],
    ["verify", RUN],
    ["doctor"],
]
DRIVER = """
import json, pathlib, sys
from lossprobe.cli.main import run
pathlib.Path("printed").mkdir()
for number, arguments in enumerate(json.loads(sys.argv[1])):
    sys.stdout = open(f"printed/{number}-{arguments[0]}.txt", "w", encoding="utf-8")
    code = run(arguments)
    sys.stdout.write(f"exit code {code}")
    sys.stdout.close()
"""
IN_PYTHON = """
import sys, pathlib
import lossprobe
source = lossprobe.open_text(["text.jsonl"])
run = lossprobe.score(lossprobe.open_checkpoint(sys.argv[1]), source, output=pathlib.Path(sys.argv[2])).run
from lossprobe.report.formats.output import write_figure
from lossprobe.report.plots.positions import plot_positions
from lossprobe.report.pictures import default_style
with default_style():
    figure = plot_positions(run, lossprobe.measure_positions(run))
write_figure("positions.png", figure)
"""


def folder_with(place: Path, *, hostile: bool) -> Path:
    place.mkdir()
    texts = [json.loads(line)["text"] for line in (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines()[:2]]
    (place / "text.jsonl").write_text("".join(json.dumps({"text": text[:400]}) + "\n" for text in texts), "utf-8")
    (place / "more.txt").write_text(texts[0][:300], "utf-8")
    for name, link in (("MODEL", CHECKPOINT), ("OTHER", EXAMPLES / "jargon-smoothed")):
        (place / name).symlink_to(link)
    if hostile:
        for name, content in FILES.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(content, "utf-8")
        for name in MODULES:
            (place / f"{name}.py").write_text(f"open('imported-{name}', 'w').close()\n", "utf-8")
    return place


def start(folder: Path, code: str, *arguments: str, **variables: str) -> subprocess.Popen:
    command = [sys.executable, "-P", "-c", code, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=os.environ | variables, **pipes)


# What else the machine does while `doctor` looks differs from one call to the next.
WAITED = re.compile(rb"; for \d+ % of the last 10 s a process waited for one")


def contents(folder: Path) -> dict[str, bytes]:
    made = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        # What is known of earlier questions is named by the path of the checkpoint.
        if (
            file.is_file()
            and name not in FILES
            and "known" not in file.parts
            and not name.endswith((".py", ".checked"))
            and ".lock" not in name
        ):
            made[name] = WAITED.sub(b"", file.read_bytes())
    return made


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """The same commands in a clean folder and in a hostile one; and a hostile one for the Python interface."""
    top = tmp_path_factory.mktemp("configuration")
    clean, hostile = folder_with(top / "clean", hostile=False), folder_with(top / "hostile", hostile=True)
    python = folder_with(top / "python", hostile=True)
    started = [
        start(clean, DRIVER, json.dumps(COMMANDS)),
        start(hostile, DRIVER, json.dumps(COMMANDS), **VARIABLES, **ARITHMETIC),
        start(python, IN_PYTHON, str(CHECKPOINT), RUN, **VARIABLES),
    ]
    for process in started:
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err.decode()
        assert out == b"", "only what the driver wrote to files is printed"
    return {"clean": clean, "hostile": hostile, "python": python}


def test_every_command_gives_the_same_bytes(folders):
    clean, hostile = contents(folders["clean"]), contents(folders["hostile"])
    assert sorted(hostile) == sorted(clean)
    assert [name for name in clean if clean[name] != hostile[name]] == []
    assert sum(name.endswith(".png") for name in clean) == 9
    assert {clean[name].rsplit(b"exit code ", 1)[1] for name in clean if name.startswith("printed/")} == {b"0"}


def test_the_python_interface_does_too(folders):
    clean, python = contents(folders["clean"]), contents(folders["python"])
    parts = [name for name in clean if name.startswith(RUN) and name.endswith(".parquet")]
    assert len(parts) >= 5
    assert [name for name in [*parts, "positions.png"] if clean[name] != python[name]] == []


def test_nothing_of_the_folder_was_imported_or_written_for_a_library(folders):
    for place in (folders["hostile"], folders["python"]):
        assert [path.name for path in place.iterdir() if path.name.startswith(("imported", "taken."))] == ["taken.py"]
        assert not (place / "hub").exists()
        assert [path.name for path in (place / "mpl").iterdir()] == ["matplotlibrc"]


def test_python_m_does_not_import_from_the_working_folder(tmp_path):
    folder = folder_with(tmp_path / "m", hostile=True)
    command = [sys.executable, "-m", "lossprobe", "inspect", str(CHECKPOINT)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(folder.glob("imported*")) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_place_of_a_configuration_file_is_not_waited_for(tmp_path):
    for name in ("matplotlibrc", ".numba_config.yaml"):
        os.mkfifo(tmp_path / name)
    code = "import lossprobe.report.style, lossprobe.scoring.kernels"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
