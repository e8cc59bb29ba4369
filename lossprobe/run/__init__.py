"""Runs on disk: writes, checks, finds and reads the Parquet files and the run.json of a run."""
