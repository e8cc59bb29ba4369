"""Thin commands, one file each."""
