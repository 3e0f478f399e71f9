"""What an instruction can be. Read `state` (what a hidden state is) and `types` (the rules by which
one follows from others), then `primitive` (what is known of an instruction's op), then `table` (all
of them)."""
