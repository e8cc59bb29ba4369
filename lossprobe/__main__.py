"""`python -m lossprobe`."""

import sys

# Python puts the working folder first: a torch.py or numba.py that lies there would stand in for the library.
# `lossprobe` itself is found by now, wherever it was.
if not sys.flags.safe_path:
    del sys.path[0]

from lossprobe.cli.main import main

if __name__ == "__main__":
    main()
