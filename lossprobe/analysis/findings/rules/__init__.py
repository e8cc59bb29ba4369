"""The rules, one file for the results of each view."""
