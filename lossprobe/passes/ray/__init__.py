"""The Ray engine: actors on the machines of a cluster score the parts of a plan; see `session` for how."""
