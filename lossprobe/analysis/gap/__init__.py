"""One model on two texts."""
