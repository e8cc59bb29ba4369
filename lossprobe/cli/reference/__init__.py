"""Generates the parts of docs/pages/reference that are made from the code, such as options, numbers and error ids."""
