"""Runs an audit: scores the texts of an audit file under a checkpoint and gives the verdicts."""
