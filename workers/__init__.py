"""Turns a program into an outcome: data, training, and the processes that do it.

Read in this order:

1. `task.py`, `outcome.py`: what a candidate is given and what comes back, as plain data.
2. `corpora.py`, `tokens.py`: where text comes from, and how it becomes memory-mapped tokens.
3. `programs.py`: what a task makes of a program: whether it may have it, what it costs.
4. `model.py`, `bundles.py`, `parameters.py`, `optimizer.py`, `tables.py`: the model around a block,
   and its weights as an optimiser's variables.
5. `engine.py`, with `tensorflow_engine.py` and `jax_engine.py` behind it, `compilation.py`,
   `usage.py` and `evaluate.py`: compiled training steps, how they are compiled, how experts were
   used, and a run under a budget. `oracle.py`: a run on random tokens.
6. `poolspec.py`, `devices.py`, `cluster.py`, `worker.py`, `pool.py`: the Ray actors that run jobs.
7. `export.py`, `export_source.py`, `export_layer.py`, `export_code.py`, `templates/`: a winner as
   a Keras layer of its own.

Workers never open the campaign's database. Nothing is imported here, so that reading a config
costs no framework.
"""
