"""Pointers of Git LFS: small texts that a clone without it has in the place of large files, under their names."""

from __future__ import annotations

START = b"version https://git-lfs.github.com/spec/v1\n"
WHAT = "a Git LFS pointer"
FETCH = "git lfs pull, in its repository, gets the file that it stands for"
