"""Programs as data. Read `dna`, then its written forms, `text` and `jsonform`."""
