"""Shows results as text, tables, pictures and files. Computes no numbers."""
