"""The audit: reads an audit file, measures each of its checks on a model, and gives the verdicts."""
