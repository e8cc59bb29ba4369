"""The result of an audit, as text and for programs."""
