"""The files of a checkpoint, read so that nothing in them runs, and nothing grows beyond the file."""
