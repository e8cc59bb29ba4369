"""What is wrong with a text, by cause: one module each that finds its places, and what joins them to the losses."""
