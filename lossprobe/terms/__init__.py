"""What every number, column, exit code, error id, protocol and metric means, each declared once, as plain data."""
