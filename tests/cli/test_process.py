"""How the process of a command starts and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lossprobe

LEAVE = "import atexit, sys, threading, time; from lossprobe.cli.process import leave\n"


def ended(code, **options):
    return subprocess.run([sys.executable, "-c", LEAVE + code], capture_output=True, text=True, check=False, **options)


def test_what_was_registered_is_called_and_what_was_printed_is_written():
    done = ended("atexit.register(print, 'at the end'); sys.stdout.write('first '); leave(10)")
    assert (done.returncode, done.stdout, done.stderr) == (10, "first at the end\n", "")


def test_modules_are_not_taken_apart():
    done = ended("class Slow:\n    def __del__(self): print('taken apart')\nsys.slow = Slow(); leave(0)")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_thread_that_still_works_is_waited_for():
    done = ended("threading.Thread(target=lambda: (time.sleep(0.2), print('done'))).start(); leave(3)")
    assert (done.returncode, done.stdout) == (3, "done\n")


@pytest.mark.parametrize("closing", ["sys.stdout.close()", "sys.stdout = None", "import os; os.close(1)"])
def test_streams_may_be_closed(closing):
    done = ended(f"{closing}; leave(5)")
    assert (done.returncode, done.stderr) == (5, "")


# Page faults of 1,000 calls that need the next piece of memory for their frames, at the depth where that is so.
FAULTS = """
import resource
from lossprobe.cli.process import call_with_room
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def leaf(a=0):
    return (a, a, a, a, a, a, (a, a, a, a, a, a, (a, a, a, a, a, a)))
def most_at(depth):
    if depth:
        return most_at(depth - 1)
    before = faults()
    for _ in range(1000):
        leaf()
    return faults() - before
def most(depths):
    return max(most_at(depth) for depth in depths)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no count of page faults")
def test_frames_of_deep_calls_do_not_come_and_go_one_by_one():
    done = ended(f"{FAULTS}print(call_with_room(most, range(300)))")
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 100


def test_garbage_is_searched_more_often_after_the_first_search():
    code = (
        "import gc; from lossprobe.cli.process import collect_less_often; collect_less_often(); "
        "first = gc.get_threshold(); gc.collect(); print(first[0], gc.get_threshold()[0], len(gc.callbacks))"
    )
    done = ended(code)
    assert (done.stdout, done.stderr) == ("2000000 200000 0\n", "")


def installed():
    """Return Python code that does what the installed command does."""
    project = Path(lossprobe.__file__).parents[1] / "pyproject.toml"
    module, function = tomllib.loads(project.read_text())["project"]["scripts"]["lossprobe"].split(":")
    return f"import sys; from {module} import {function}; sys.exit({function}())"


@pytest.mark.skipif(sys.platform == "win32", reason="has other signals")
@pytest.mark.parametrize("command", [["-m", "lossprobe"], ["-c", installed()]])
@pytest.mark.parametrize("imported", ["click", "json"])
def test_ctrl_c_while_modules_are_imported_ends_quietly(tmp_path, command, imported):
    (tmp_path / f"{imported}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    places = [str(tmp_path), str(Path(lossprobe.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    done = subprocess.run(
        [sys.executable, *command, "--version"],
        env=environment,
        cwd=tmp_path.parent,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
