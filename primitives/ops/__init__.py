"""What an instruction can be. Read `types` (what a hidden state is), then `table`."""
