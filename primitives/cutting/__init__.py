"""What can be cut out of a graph so that a smaller one is left. Read `dims` (which axes are one and
the same), `layout` (the dims of every state and weight), `vanishing` (when a masked unit is 0),
`marking` (the graph of a masked block), `units` (what can be cut, and why the rest cannot), `terms`
(what a partly masked block costs), `masking` (the weights of a masked block) and `cut` (the smaller
graph and its weights).
"""
