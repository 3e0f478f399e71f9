"""A campaign at work. Read `history` (state as a fold over events), `gates`, `proposal`,
`controller` (the loop), then `pace`, `progress` and `queries` (what can be read of it).
"""
