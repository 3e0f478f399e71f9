"""A run from start to outcome: `evaluate`, which `tempo` keeps from taking too long. `usage` and
`oracle` say more about a model."""
