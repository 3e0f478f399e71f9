"""Faults injected for real. They take minutes: `pytest -m faults` runs them, `pytest` does not."""
