"""Turns a program into an outcome: data, training, and the processes that do it.

Read in this order:

1. `task.py`, `outcome.py`: what a candidate is given and what comes back, as plain data.
2. `corpora.py`, `tokens.py`: where text comes from, and how it becomes memory-mapped tokens.
3. `model.py`, `engine.py`, `evaluate.py`: the model around a block, its training, its score.
4. `poolspec.py`, `devices.py`, `pool.py`: the Ray actors that run jobs, one a device.

Workers never open the campaign's database. Nothing is imported here, so that reading a config
costs no framework.
"""
