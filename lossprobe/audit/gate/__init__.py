"""From a checkpoint to a verdict: the pass of an audit."""
