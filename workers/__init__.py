"""Turns a program into an outcome: data, training, and the processes that do it.

Read in this order:

1. `task.py`, `outcome.py`: what a candidate is given and what comes back, as plain data.
2. `corpora.py`, `tokens.py`: where text comes from, and how it becomes memory-mapped tokens.
3. `model.py`, `parameters.py`, `optimizer.py`: the model around a block, and its weights as an
   optimiser's variables.
4. `engine.py`, with `tensorflow_engine.py` and `jax_engine.py` behind it, and `evaluate.py`:
   compiled training steps, and a run under a budget.
5. `poolspec.py`, `devices.py`, `cluster.py`, `worker.py`, `pool.py`: the Ray actors that run jobs.
6. `export.py`, `export_source.py`, `export_layer.py`, `export_code.py`, `templates/`: a winner as
   a Keras layer of its own.

Workers never open the campaign's database. Nothing is imported here, so that reading a config
costs no framework.
"""
