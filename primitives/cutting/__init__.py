"""What can be cut out of a graph so that a smaller one is left. Read `dims` (which axes are one and
the same), `layout` (the dims of every state and weight), `vanishing` (when a masked unit is 0),
`units` (what can be cut, and why the rest cannot), `terms` (what a partly masked block costs),
`masking` (masks as factors of weights) and `cut` (the smaller graph and its weights).
"""
