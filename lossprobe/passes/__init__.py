"""Where the layers meet: a checkpoint and a text in, stored parts out."""
