"""Estimators on arrays: intervals, tests, fits. No SQL."""
