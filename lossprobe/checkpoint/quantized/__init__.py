"""Weights that a quantiser wrote: each format turns stored codes and scales back into plain weights."""
