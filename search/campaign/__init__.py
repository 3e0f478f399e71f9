"""A campaign at work. Read `history` (state as a fold over events), `ranking` (several objectives),
`gates`, `proposal`, `proposer`, `controller` (the loop), `version` and `replay` (the same again,
from its log), then `pace`, `progress` and `queries` (what can be read of it).
"""
