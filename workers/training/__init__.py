"""A run from start to outcome: `evaluate`. `usage` and `oracle` say more about a model."""
