"""A run from start to outcome: `evaluate`, then `run`, which `tempo` keeps from taking too long.
`usage` and `oracle` say more about a model."""
