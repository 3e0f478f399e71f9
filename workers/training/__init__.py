"""A run from start to outcome: `evaluate`, `pausing` (a run that goes on later, from its
`checkpoint`), then `run`, which `tempo` keeps from taking too long. `usage` and `oracle` say more
about a model."""
