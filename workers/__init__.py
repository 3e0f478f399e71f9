"""Turns a program into an outcome. Folders import downwards only, in this order:

- `machine`: what this machine has to compute with, and the table of backends.
- `data`: where text comes from, and how it becomes memory-mapped tokens.
- `spec`: what a candidate is given (task, budget, job) and what comes back, as plain data.
- `model`: the model around a block, and its weights as an optimiser's variables.
- `engines`: compiled training steps on each backend.
- `training`: a run under a budget; experts' usage; the random-token oracle.
- `memory`: what a trained model scores with memories.
- `pruning`: smaller models from trained ones.
- `plugins`: modules that add rows to the tables.
- `pool`: the Ray actors that run jobs.
- `export`: a winner as a Keras layer of its own.

Workers never open the campaign's database. Reading a config imports no framework.
"""
