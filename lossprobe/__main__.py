"""`python -m lossprobe`."""

from lossprobe.cli.main import main

if __name__ == "__main__":
    main()
