"""From a graph to code. Read `dispatch` (how routed calls run), `cost`, `rewrite` (patterns that
have a kernel), `emit` (source) and `layer` (that source as a function).
"""
