"""Own modules for the plainest models, so that transformers' modelling code need not be imported.

That import takes a second, which is most of what scoring a short text takes. Modules and weights have the names that
they have in transformers, and each computes the same operations in the same order, so that results are bit for bit
those of transformers' classes. `families` says which folders are plain; all others are left to transformers.
"""
