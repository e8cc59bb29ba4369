"""The loss that a trainer logs, computed from the losses of a stored run."""
