"""A metric: how much of the loss is left after the first hurdle."""

from __future__ import annotations

from workers.spec.metrics import METRICS, Metric, Run


def loss_drop(run: Run) -> float | None:
    """The first validation loss less the last one; None where there is none."""
    return run.curve[0].val_loss - run.curve[-1].val_loss if run.curve else None


LOSS_DROP = Metric(
    name="loss_drop",
    unit="nats a token",
    better="higher",
    meaning="validation loss from the first hurdle to the end",
    where="validation",
    measure=loss_drop,
)


def register() -> None:
    METRICS.register(LOSS_DROP)
