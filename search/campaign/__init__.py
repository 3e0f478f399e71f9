"""A campaign at work. Read `history` (state as a fold over events), `ranking` (several objectives),
`gates`, `proposal`, `controller` (the loop), then `pace`, `progress` and `queries` (what can be
read of it).
"""
