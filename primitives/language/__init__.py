"""Programs as data. Read `dna`, then its written forms, `text` and `jsonform`; `constant` has the
expressions that a text may hold, `naming` the names of hidden states that nobody named."""
