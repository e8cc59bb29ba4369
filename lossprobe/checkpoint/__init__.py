"""What scores it: one file per family, all behind the protocols of `interface`."""
