"""The checks of an audit: metrics, estimates with intervals, and verdicts."""
