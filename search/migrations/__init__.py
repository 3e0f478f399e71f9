"""The schema's history, in `versions`. `search.database` runs it when a database is opened."""
