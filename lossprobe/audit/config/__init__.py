"""Reads audit files in TOML into settings. Unknown keys and values are refused, with the line of each mistake."""
