"""A plug-in that adds one row of each kind."""

from primevo_example import corpus, metric, mutation, objective, primitive

__version__ = "0.3"


def register() -> None:
    for module in (corpus, metric, mutation, objective, primitive):
        module.register()
