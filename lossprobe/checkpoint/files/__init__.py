"""Read the files of a checkpoint without running anything in them, and with bounded memory and time."""
