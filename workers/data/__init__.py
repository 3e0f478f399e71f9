"""Text and tokens. Read `corpora`, then `tokens`."""
