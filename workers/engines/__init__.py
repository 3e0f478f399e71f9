"""Training steps. Read `engine` (the contract), `optimizer`, `compilation` (what is worth
compiling), then a backend's engine; `tables` trains large expert tables.
"""
