"""Programs compared by training: a study is a list of programs times seeds on one task.

Read in this order: `setting` is what all runs of a study share; `runs` finds and keeps runs in the
database, under what decides them; `runner` trains what is missing, and `study` those of one
setting; `speed` and `comparison` make the figures; `charts` draws them. `edits` takes a lineage
apart into changes that can be applied alone, `explanation` trains with each of them alone, and
`simplification` takes instructions away.

`grid` has many settings: programs at every size; `law` fits how their losses fall, `frontier` holds
them against a baseline at equal cost, `scaling` is all of that with its words, and `gridcharts`
draws it.

A study has no state of its own: the same command finds the runs that it has recorded, and goes on.
"""
