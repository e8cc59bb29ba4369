"""Results as text, tables, pictures and files. Computes nothing."""
