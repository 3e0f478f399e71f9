"""The command line. Read `app`, then `commands` (a verb is a function there)."""
