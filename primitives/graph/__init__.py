"""From a program to its canonical graph. Read `liveness`, then `build`. `live` writes what runs
of a program as a program of its own."""
