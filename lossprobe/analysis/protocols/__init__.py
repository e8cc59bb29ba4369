"""The number that another tool would print."""
