"""How the process of a command ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
