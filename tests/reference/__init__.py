"""Models written apart from the code that they judge, and random programs."""
