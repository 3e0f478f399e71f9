"""What is never lost. Read `events`, `models` (the tables), `store` (the contract), then `database`
and `lease`; `migrations` holds the schema's history."""
