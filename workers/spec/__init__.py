"""What a worker is told and what it answers. Read `task`, `outcome`, `metrics`, `pool`, then
`fit`."""
