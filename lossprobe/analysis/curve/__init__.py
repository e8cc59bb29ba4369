"""Whether a training run is healthy, from its log."""
