"""Functions on arrays that lowered programs call: `dense`, then `routing` (how tokens reach
experts) and `balancing` (what keeps experts busy).
"""
