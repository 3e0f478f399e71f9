"""What an instruction can be. Read `types` (what a hidden state is), then `primitive` (what is
known of an instruction's op), then `table` (all of them)."""
