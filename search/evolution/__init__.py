"""The algorithms alone. Read `mutation`, `population`, `pareto`, `hurdles`, `rungs`."""
