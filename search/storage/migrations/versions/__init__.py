"""One module a revision, named v<number>_<what>; the newest is `search.storage.database.HEAD`."""
