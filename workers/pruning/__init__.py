"""Smaller models from trained ones, after CoFi (Xia, Zhong, Chen 2022, arXiv 2204.00408).

Read `plan` (what can be cut of a whole model, and what that saves), `gates` (random masks with a
gradient), `target` (how much is to go, and when), `distillation` (what a student learns of the
whole model), `student` and `trainer` (a model in training), `rounding` (which units go), `table`
and `speed` (models side by side), `checkpoint` (how a killed run goes on) and `pruning` (all of it,
from a trained model to a smaller one).
"""
