"""Open model checkpoints and their tokenizers; `interface` has the protocols that all families implement."""
