"""What a worker is told and what it answers. Read `task`, `objectives` (what is predicted),
`outcome`, `metrics`, `pool`, then `fit`."""
