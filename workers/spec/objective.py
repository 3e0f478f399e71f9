"""What one objective is: from text to losses, and the words of its exports. The table of them is
`objectives`. No framework is imported until a model is traced, and no NumPy until windows are
taken: configs are read without either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Tokens: TypeAlias = "npt.NDArray[np.integer[Any]]"
"""Token ids: a split [N], whose documents stand one after the other, or windows [..., length]."""


class Batch(NamedTuple):
    """What a model is given and asked, all [batch, T]: the `tokens` that it reads, the `targets`
    that it should give at each position, and `counts`, how much the loss there counts (floats of at
    least 0). None where all positions count the same. `local` [batch] is 1 where an objective lets
    a sequence remember itself; None where it does not choose."""

    tokens: Any
    targets: Any
    counts: Any = None
    local: Any = None


class Head(Protocol):
    """The end of the model with its weights: final norm and output embedding. `memory` is the state
    [batch, T, d_model] by which the last block's contexts are remembered (`lowering.memory`), where
    the objective `remembers`, else None."""

    @property
    def memory(self) -> Any: ...

    def logits(self, x: Any) -> Any:
        """x [batch, T, d_model] -> [batch, T, rows of the embedding]."""

    def losses(self, x: Any, targets: Any) -> Any:
        """The cross entropy [batch, T], in nats, of targets [batch, T]; traced once for all the
        candidates of a worker."""

    def scored(self, x: Any, targets: Any) -> tuple[Any, Any]:
        """The cross entropy and the logits [batch, T] of targets [batch, T]."""


def random_windows(
    tokens: Tokens, length: int, shape: tuple[int, int], rng: np.random.Generator
) -> Tokens:
    """Windows [*shape, length] at random places, each as likely as any other."""
    from numpy.lib.stride_tricks import sliding_window_view

    views = sliding_window_view(tokens, length)
    return views[rng.integers(0, len(views), shape)]


def even_windows(tokens: Tokens, length: int, shape: tuple[int, int]) -> Tokens:
    """Windows [*shape, length] at even distances over all the tokens: the same at every call."""
    import numpy as np

    views = np.lib.stride_tricks.sliding_window_view(tokens, length)
    places = np.linspace(0, len(views) - 1, shape[0] * shape[1]).astype(np.int64)
    return views[places.reshape(shape)]


def cross_entropy(x: Any, batch: Batch, head: Head) -> Any:
    """x [batch, T, d_model] -> losses [batch, T] in nats."""
    return head.losses(x, batch.targets)


@dataclass(frozen=True, slots=True)
class Objective:
    """One way to train and score a model on text.

    On the host, `draw` and `fixed` take windows from a split's tokens: [steps, batch, length] or
    [batches, batch, length], with length = sequence_length + lookahead = T + lookahead. In the
    model, traced once and so pure, `batch` makes inputs and targets of windows [batch, length], and
    `losses` compares what comes out of the last block with the targets.

    Attributes:
        name: what `training.objective` calls it.
        meaning: what is predicted, in a line.
        batch: (windows, vocabulary, random) -> Batch. Token ids from `vocabulary` on are the
            objective's own, see `extra_rows`; `random` is what keras.random calls a seed, another
            one at each step and the same one whenever it is scored.
        bidirectional: whether a position may depend on later ones.
        extra_rows: rows of the embedding beside those of the vocabulary, such as one for hidden
            tokens.
        lookahead: how many tokens a window has beyond the T that the model reads.
        draw: (tokens, length, (steps, batch), rng) -> windows to train on.
        fixed: (tokens, length, (batches, batch)) -> windows to score, always the same.
        losses: (x, batch, head) -> losses [batch, T] in nats. A batch's loss is their mean, weighed
            by its `counts`; a score is the mean over all positions of the slice so weighed.
        scores: the losses in evaluation mode, where they are not `losses`: what a candidate is
            judged by must not depend on which sequences share a batch by chance.
        remembers: whether `losses` read `head.memory`.
        group: how many sequences of a batch belong together; batches are multiples of it.
        stretch: how many tokens in a row `draw` and `fixed` need for windows of a length.
        example: the template of the exported example script.
        block: what an exported block is.
        example_ends: what the example script does with a text at last; empty where that follows
            from `continues`.
        about_model: what an exported model's docstring adds.
    """

    name: str
    meaning: str
    batch: Callable[[Any, int, Any], Batch]
    bidirectional: bool = False
    extra_rows: int = 0
    lookahead: int = 1
    draw: Callable[[Tokens, int, tuple[int, int], np.random.Generator], Tokens] = random_windows
    fixed: Callable[[Tokens, int, tuple[int, int]], Tokens] = even_windows
    losses: Callable[[Any, Batch, Head], Any] = cross_entropy
    scores: Callable[[Any, Batch, Head], Any] | None = None
    remembers: bool = False
    group: int = 1
    stretch: Callable[[int], int] = int
    example: str = "example.py"
    block: str = "a causal decoder block"
    example_ends: str = ""
    about_model: str = ""

    @property
    def scoring(self) -> Callable[[Any, Batch, Head], Any]:
        """The losses in evaluation mode."""
        return self.scores or self.losses

    @property
    def continues(self) -> bool:
        """Whether a model that was trained for it writes a text on, token by token: each position
        is asked for the very next token."""
        return not self.bidirectional and self.lookahead == 1 and not self.extra_rows
