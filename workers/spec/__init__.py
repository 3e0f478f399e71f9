"""What a worker is told and what it answers. Read `task`, `outcome`, `pool`, then `fit`."""
