"""Makes MKL's race at its first element-wise call happen each time, on any x86-64 processor.

MKL notes at that call which kind of processor it runs on: first the number that its detection gives, and at once over
it the one that chooses the code. A thread that reads the first of the two takes code of low accuracy. The library below
stands before MKL: it says that the processor is Intel's, for which alone the two numbers differ, and waits between the
two until another thread has read the first.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

COMPILER = shutil.which("cc")
SOURCE = r"""
#include <dlfcn.h>
#include <unistd.h>

static const int chooses[] = {0, 1, 0, 0, 0, 2, 2, 3, 4, 5};
static volatile int begun = 0, kind = -1, read_by_another = 0;

int mkl_serv_intel_cpu_true(void) { return 1; }

int mkl_vml_serv_cpu_detect(void) {
    if (__sync_lock_test_and_set(&begun, 1)) {
        while (kind == -1) usleep(1000);
        int found = kind;
        read_by_another = 1;
        return found;
    }
    void *torch = dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_NOW);
    int detected = ((int (*)(void)) dlsym(torch, "mkl_serv_vml_cpu_detect"))();
    kind = detected;
    for (int tenth = 0; tenth < 50 && !read_by_another; tenth++) usleep(100000);
    return kind = chooses[detected];
}
"""
# Prints which functions give other results at their first call than at the second, each on a tensor that two threads
# share. The addition lets both threads start before.
CALLS = """
import torch
from lossprobe.checkpoint.model.vector_math import DTYPES, FUNCTIONS, settle_vector_math

if {settled}:
    settle_vector_math()
torch.set_num_threads(2)
for dtype in DTYPES:
    values = torch.linspace(0.1, 0.9, 2**17, dtype=dtype) + 0.0
    for function in FUNCTIONS:
        if not torch.equal(function(values), function(values)):
            print(function.__name__, dtype)
"""


def build(folder: Path) -> Path:
    """Compile the library."""
    source, library = folder / "race.c", folder / "race.so"
    source.write_text(SOURCE)
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def differing(library: Path, *, settled: bool) -> list[str]:
    """Return the functions whose first call differs from the second, in a process of its own."""
    environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", "-c", CALLS.format(settled=settled)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
