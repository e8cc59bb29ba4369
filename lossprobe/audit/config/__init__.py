"""From an audit file in TOML to its settings: strict, with the line of every mistake."""
