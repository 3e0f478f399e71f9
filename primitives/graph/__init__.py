"""From a program to its canonical graph. Read `build`, which is all of it, then what a program
passes through: `liveness`, `inline`, `typing`, `canonical`. `live` writes what runs of a program as
a program of its own; `calls` says which calls a node lies in."""
