"""The algorithms alone. Read `mutation`, `population`, `hurdles`."""
