"""One thread for every test and every process it starts: tiny models gain nothing from two, and wait for both."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
