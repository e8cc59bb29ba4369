"""A transformers model with exactly the stored weights, and what its losses may depend on."""
