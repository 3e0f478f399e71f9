"""Text and tokens. Read `corpora` (the table), `splits`, then `tokens`; `similar` finds texts that
are alike."""
