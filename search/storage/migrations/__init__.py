"""The schema's history, in `versions`. `database` runs it when a
database is opened."""
