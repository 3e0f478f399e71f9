"""Chooses programs and remembers them; never imports TensorFlow.

Read in this order: `config` (what a campaign is told; `configfile` reads it from YAML, `document`
keeps the line numbers), `mutation` (one small change of a program), `population`, `hurdles` and
`gates` (what a child must get past), `proposal` (a child that got past), `history` (state as a fold
over what was recorded), `models`, `database`, `lease` and `store` (the rows, and who may write
them), `controller` (the loop), `progress`, `standing` and `queries` (what can be read of a
campaign), then `cli` and `commands` (a verb is a function there).
"""
