"""Primevo from Python, as `import primevo` gives it.

`campaign` runs or evaluates a campaign and reads it; `candidate` and `status` are what it gives.
`program` is a program to look at; `programs` lists, mutates, trains and exports them. `studies`
compares, explains and simplifies. `table` and `curve` are what a notebook shows; `opening` says
which database, config and program a name means.
"""
