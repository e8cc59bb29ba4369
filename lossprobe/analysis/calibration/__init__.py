"""Calibration: how well a model's probabilities match what happens."""
