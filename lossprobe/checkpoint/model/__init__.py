"""Build transformers models with exactly the stored weights, and find out what their losses depend on."""
