"""Training steps. Read `engine` (the contract), `passes` (what a step computes on any backend),
`optimizer`, `compilation` (what is worth compiling), then a backend's engine; `tables` trains large
expert tables, each backend in its own way. `learner` and its two backends train any function, for
pruning.
"""
