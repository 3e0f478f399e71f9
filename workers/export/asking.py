"""What blocks ask of a trainer, in an exported module: fillings for the holes of the templates.

`fit` of the exported model rewards choices, and passes a batch twice, as a candidate's training
does (`workers.model.learning`).
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from workers.export.blocks import Block
from workers.export.code import LINE, template
from workers.spec.fit import consistency


def asking_calls(blocks: Sequence[Block]) -> frozenset[str]:
    """Names of the kernels that the model itself calls."""
    used = {"rewarded": _rewards(blocks), "disagreement": _agree(blocks) != 0}
    return frozenset(name for name, needed in used.items() if needed)


def asks(blocks: Sequence[Block]) -> bool:
    """Whether they ask more of their trainer than the gradient of losses."""
    return _rewards(blocks) or _agree(blocks) != 0


def asking_parts(blocks: Sequence[Block], embedded: str, passed: str) -> dict[str, str]:
    """What the holes of the module's template that deal with a pass are filled with; `embedded` is
    what the first block is given, `passed` what else each is."""
    if not asks(blocks):
        passes = template("passes.py").substitute(embedded=embedded, passed=passed)
        return {"asked": "", "passes": passes}
    agree, rewards, moving = _agree(blocks), _rewards(blocks), moves_once(blocks)
    return {"asked": _ASKED, "passes": _passes(embedded, passed, agree, rewards, moving)}


def _passes(embedded: str, passed: str, agree: float, rewards: bool, moving: bool) -> str:
    """The model's pass and its loss: of two passes where predictions are to `agree`, with rewards,
    and with states that move in one pass alone."""
    said = [_REWARDED] * rewards + [_TWICE.format(agree)] * (agree != 0)
    return template("asking.py").substitute(
        embedded=embedded,
        passed=passed,
        made=(_MOVING if moving else _BOTH) if agree else _ONE,
        option=", moves: bool = True" * moving,
        moves=", moves=moves" * moving,
        said=_said(f"{'; '.join(said)}."),
        rewards=_REWARDS if rewards else "",
        again=_AGAIN.format(agree) if agree else "",
    )


def moves_once(blocks: Sequence[Block]) -> bool:
    """Whether one of two passes must leave the blocks' states as they are."""
    return _agree(blocks) != 0 and any(block.uses("updates") for block in blocks)


def _rewards(blocks: Sequence[Block]) -> bool:
    return any(block.uses("policies") or block.uses("baselines") for block in blocks)


def _agree(blocks: Sequence[Block]) -> float:
    """How much the predictions of two passes are to agree; 0 for one pass."""
    return max((consistency(block.graph) for block in blocks), default=0.0)


def _said(text: str) -> str:
    """The end of a docstring, in lines that follow `for:`."""
    start = "        for:"
    return fill(f"{start} {text}", LINE - 3, subsequent_indent=" " * 8).removeprefix(start)


_ASKED = """\
        self.asked: tuple[Any, ...] = ()  # of the trainer, by a pass in training
"""

_ONE = "        made = [self.through(tokens, training)]"

_BOTH = "        made = [self.through(tokens, training) for _ in range(2 if training else 1)]"

_MOVING = """\
        moves = (False, True) if training else (True,)  # states follow one of two passes
        made = [self.through(tokens, training, each) for each in moves]"""

_REWARDED = (
    "chosen experts are rewarded by how far a token's cross entropy is below the batch's mean"
)

_TWICE = (
    "each batch passes twice, with other draws, and {} times how far the predictions are apart is "
    "added to the losses of both"
)

_REWARDS = """\
        for logits, policies, baselines in asked:
            scores = ops.cast(logits, "float32")
            losses = ops.sparse_categorical_crossentropy(y, scores, from_logits=True)
            better = ops.mean(losses * counts) - losses
            total = sum(rewarded(policies, baselines, better), total)
"""

_AGAIN = """\
        other = asked[0][0]
        second = super().compute_loss(x, y, other, sample_weight, training)
        total = total + second - sum(self.losses)  # those of both passes are in both
        total = total + {} * ops.mean(disagreement(other, y_pred) * counts)
"""
