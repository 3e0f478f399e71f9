"""What is never lost. Read `events`, `models` (the tables), `entries` (what is written), `store`
(the contract), then `address` (a URL), `database`, `schema` and `lease`; `migrations` holds the
schema's history."""
