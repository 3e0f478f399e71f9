"""Text and tokens. Read `corpora` (the table), `splits`, then `tokens`."""
