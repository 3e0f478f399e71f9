"""From a program to its canonical graph. Read `liveness`, then `build`."""
