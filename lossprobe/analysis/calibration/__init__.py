"""How far a model's probabilities can be trusted."""
