"""Declarations of options, from which the command line, the keys of the audit file and the reference page are made."""
