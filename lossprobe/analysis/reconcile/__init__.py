"""Which way of making one number of the losses gives the number in a training log."""
