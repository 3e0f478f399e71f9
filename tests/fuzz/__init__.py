"""Fuzzing of everything that reads what somebody else wrote. Read `targets` (what is fuzzed, and
what an answer may be), `mutate` (how inputs are made), `report`, then `__main__`:

    python -m tests.fuzz --minutes 60 --report fuzz.json
"""
