"""Scoring: tokens go through the model and its logits become the statistics of each token. The only slow step."""
