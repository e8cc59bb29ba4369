"""One file a family: what its checkpoints look like, and how they are opened."""
