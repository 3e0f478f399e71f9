"""What is never lost. Read `events`, `models` (the tables), `entries` (what is written), `store`
(the contract), then `database` and `lease`; `migrations` holds the schema's history."""
