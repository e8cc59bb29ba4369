"""What was measured, on disk: Parquet parts and run.json."""
