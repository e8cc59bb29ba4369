"""Pairs of a chosen and a rejected answer: which one a model finds more likely."""
