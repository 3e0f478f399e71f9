"""From a graph to code. Read `dispatch` (how routed calls run), `cost`, `rewrite` (patterns that
have a kernel), `expression` (code as records), `operation` and `routed` (one node as records),
`weights`, `emit` (a block's statements), `render` (records as text), `layer` (that text as a
function), and `numeric` (a graph in NumPy), which `behaviour` and `divergence` look at, the latter
through `probe` (blocks of which a node is run when asked for) and `bounds` (what need not be).
"""
