"""What a worker is told and what it answers. Read `task`, `objective` and `objectives` (what is
predicted; `trime` by memories), `outcome`, `metrics`, `pool`, then `fit`."""
