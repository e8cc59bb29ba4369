"""Runs the command line for `python -m lossprobe`."""

import sys

# Python puts the working folder first in sys.path, so a torch.py or numba.py there would be imported in place of the
# library. The entry can go because `lossprobe` itself has been imported by now.
if not sys.flags.safe_path:
    del sys.path[0]

from lossprobe.start import main

if __name__ == "__main__":
    main()
