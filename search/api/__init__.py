"""Primevo from Python, as `import primevo` gives it.

`campaign` runs or evaluates a campaign and reads it; `program` is a program to look at, mutate,
train and export; `table` and `curve` are what a notebook shows; `programs` has the functions that
work on programs without a campaign; `opening` says which database a name means.
"""
