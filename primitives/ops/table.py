"""The one table of primitives: the 39 of Primer (So et al. 2021, appendix A.1, table 2), then those
that sparse routing needs. Plug-ins add rows with `PRIMITIVES.register`.

A row is everything that is known of a primitive: what it is called, which TF function it is, which
instruction fields it reads, its type rule, its cost rule, the keras.ops expression it lowers to,
and what it means. Tests, command line listings, mutation and dispatch all read this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from primitives.ops import types
from primitives.ops.primitive import EACH, Init, Primitive, Rule, Stepwise, Weight
from primitives.ops.state import CHANNELS, COUNT, ENTRIES, KEYS, Inferred, Mismatch, StateType
from primitives.registry import Registry

__all__ = ["EACH", "PRIMITIVES", "Init", "Primitive", "Rule", "Stepwise", "Weight", "infer"]


def _each(contracted: int, read: float, made: float) -> float:
    return made


def _reduced(contracted: int, read: float, made: float) -> float:
    return read


def _product(contracted: int, read: float, made: float) -> float:
    return 2 * contracted * made


def _unary_rule(rule: Callable[[StateType], Inferred]) -> Rule:
    return lambda x, y, dim, context: rule(x)


def _binary_rule(rule: Callable[[StateType, StateType], Inferred]) -> Rule:
    return lambda x, y, dim, context: rule(x, y)


def _per_channel_rule(x: StateType, y: StateType, dim: int, context: tuple[int, ...]) -> Inferred:
    return types.per_channel(x, context)


def _projection_rule(axis: str) -> Rule:
    return lambda x, y, size, context: types.projection(axis, x, size, context)


def _along(rule: Rule) -> Rule:
    return lambda x, y, size, context: types.along(rule(x, y, size, context))


def _unary(name: str, tf: str, code: str, meaning: str, hidden: float | None = None) -> Primitive:
    rule = _unary_rule(types.elementwise)
    return Primitive(
        name, tf, ("in1",), meaning, rule, _each, code, (hidden, None), stepwise=EACH
    )  # fmt: skip


def _binary(
    name: str, tf: str, meaning: str, commutative: bool = False, hidden: float | None = None
) -> Primitive:
    rule, code = _binary_rule(types.binary), f"ops.{tf.split('.')[-1]}({{x}}, {{y}})"
    return Primitive(
        name,
        tf,
        ("in1", "in2"),
        meaning,
        rule,
        _each,
        code,
        (None, hidden),
        commutative=commutative,
        stepwise=EACH,
    )


def _constant(name: str, tf: str, meaning: str) -> Primitive:
    rule, code = _unary_rule(types.elementwise), f"ops.{tf.split('.')[-1]}({{x}}, {{c}})"
    return Primitive(name, tf, ("in1", "constant"), meaning, rule, _each, code, stepwise=EACH)


def _reduction(
    name: str, meaning: str, hidden: float, stepwise: Stepwise = EACH, **variants: str
) -> Primitive:
    short = name.split()[1].lower()
    code = f"ops.{short}({{x}}, axis=-1, keepdims=True)"
    return Primitive(
        name, f"tf.reduce_{short}", ("in1",), meaning, _unary_rule(types.reduction), _reduced, code,
        (hidden, None), variants=variants,
        unmasked=_unary_rule(partial(types.reduction, bidirectional=True)), stepwise=stepwise,
    )  # fmt: skip


def _conv(taps: int) -> Primitive:
    one = taps == 1
    return Primitive(
        f"CONV {taps}X1",
        "tf.layers.dense" if one else "tf.nn.conv1d",
        ("in1", "dim"),
        "linear map of the channels" if one else f"linear map of the last {taps} positions",
        _projection_rule(CHANNELS) if one else _along(_projection_rule(CHANNELS)),
        lambda contracted, read, made: 2 * taps * contracted * made,
        "project({x}, {w})" if one else "conv({x}, {w})",
        weight=Weight(lambda n, m: (n, m) if one else (taps, n, m), "fan_in"),
        aligned=False,
        bfloat16=True,
        stepwise=EACH if one else Stepwise("conv_within({x}, {w})", before=taps - 1),
    )


def _dconv(taps: int) -> Primitive:
    return Primitive(
        f"DCONV {taps}X1",
        "tf.nn.depthwise_conv2d",
        ("in1",),
        f"each channel's weighted sum over the last {taps} positions",
        _along(_per_channel_rule),
        lambda contracted, read, made: 2 * taps * made,
        "depthwise_conv({x}, {w})",
        weight=Weight(lambda n, m: (taps, n), "causal"),
        stepwise=Stepwise("depthwise_within({x}, {w})", before=taps - 1),
    )


def _learned(name: str, tf: str, code: str, meaning: str, init: Init) -> Primitive:
    return Primitive(
        name, tf, ("in1",), meaning, _per_channel_rule, _each, code,
        weight=Weight(lambda n, m: (n,), init), stepwise=EACH,
    )  # fmt: skip


_BIG = 3.4e38

_PRIMER_ROWS = (
    _binary("ADD", "tf.math.add", "x + y", commutative=True),
    _binary("DIFFERENCE", "tf.math.subtract", "x - y"),
    _binary("DIVIDE", "tf.math.divide", "x / y", hidden=1.0),
    _binary("MULTIPLY", "tf.math.multiply", "x * y", commutative=True),
    _unary("ABS ROOT", "tf.math.sqrt(tf.abs(x))", "ops.sqrt(ops.abs({x}))", "sqrt(|x|)", 1.0),
    _unary("SQUARE", "tf.math.square", "ops.square({x})", "x * x"),
    _unary("EXP", "tf.exp", "ops.exp({x})", "e to the x"),
    _unary("LOG", "tf.math.log(tf.abs(x))", "ops.log(ops.abs({x}))", "log(|x|)", 1.0),
    _constant("C MUL", "tf.math.multiply", "x times a bank constant"),
    _unary("ABS", "tf.abs", "ops.abs({x})", "|x|"),
    _unary("RECIP", "tf.math.reciprocal_no_nan", "reciprocal({x})", "1 / x, and 0 where x is 0"),
    _unary("SIGN", "tf.sign", "ops.sign({x})", "-1, 0 or 1"),
    _unary("COS", "tf.cos", "ops.cos({x})", "cosine"),
    _unary("SIN", "tf.sin", "ops.sin({x})", "sine"),
    _unary("TANH", "tf.tanh", "ops.tanh({x})", "hyperbolic tangent"),
    _unary("SIGMOID", "tf.sigmoid", "ops.sigmoid({x})", "1 / (1 + e to the -x)"),
    _constant("MAX", "tf.math.maximum", "the larger of x and a bank constant (0: ReLU)"),
    _constant("MIN", "tf.math.minimum", "the smaller of x and a bank constant"),
    _learned(
        "SCALE", "x * tf.Variable()", "ops.multiply({x}, {v})",
        "x times a learned factor a channel", "ones",
    ),
    _learned(
        "SHIFT", "x + tf.Variable()", "ops.add({x}, {v})",
        "x plus a learned offset a channel", "zeros",
    ),
    Primitive(
        "MASK", "tf.linalg.band_part", ("in1",), "keeps key positions s <= t, closing the state",
        _unary_rule(types.mask), lambda contracted, read, made: 0, "hide({x}, 0.0)",
        stepwise=Stepwise("hide_later({x}, 0.0, {start})"),
    ),
    Primitive(
        "CUM PROD", "tf.math.cumprod", ("in1",), "running product over the sequence",
        _unary_rule(types.sequence), _each, "ops.cumprod({x}, axis=-2)", (1.0, None),
        stepwise=Stepwise("{carried} * ops.cumprod({x}, axis=-2)", carried=1.0),
    ),
    Primitive(
        "CUM SUM", "tf.math.cumsum", ("in1",), "running sum over the sequence",
        _unary_rule(types.sequence), _each, "ops.cumsum({x}, axis=-2)", (0.0, None),
        stepwise=Stepwise("{carried} + ops.cumsum({x}, axis=-2)", carried=0.0),
    ),
    _reduction(
        "RED MEAN", "mean over the feature axis", 0.0,
        Stepwise(variants={KEYS: "mean_so_far({x}, {start})"}), **{KEYS: "visible_mean({x})"},
    ),
    _reduction("RED SUM", "sum over the feature axis", 0.0),
    _reduction("RED MIN", "smallest over the feature axis", _BIG),
    _reduction("RED MAX", "largest over the feature axis", -_BIG),
    _reduction("RED PROD", "product over the feature axis", 1.0),
    Primitive(
        "MAT MUL", "tf.matmul", ("in1", "in2"), "x [T, S] times y [S, n]",
        _binary_rule(types.product), _product, "ops.matmul({x}, {y})", (0.0, 0.0), bfloat16=True,
        unmasked=_binary_rule(partial(types.product, bidirectional=True)),
        stepwise=Stepwise(every=("y",)),
    ),
    Primitive(
        "T-MAT MUL", "tf.matmul(transpose_b=True)", ("in1", "in2"), "x times y transposed: scores",
        _binary_rule(types.transposed_product), _product,
        "ops.matmul({x}, ops.swapaxes({y}, -1, -2))", (0.0, 0.0), bfloat16=True,
        unmasked=_binary_rule(partial(types.transposed_product, bidirectional=True)),
        stepwise=Stepwise(every=("y",)),
    ),
    *(_conv(taps) for taps in (1, 3, 7, 15, 31)),
    *(_dconv(taps) for taps in (3, 7, 15, 31)),
)  # fmt: skip


def _routing(
    name: str, tf: str, reads: str, meaning: str, rule: Rule, code: str, **more: Any
) -> Primitive:
    row = Primitive(name, tf, tuple(reads.split()), meaning, rule, _each, code, **more)
    return replace(row, routing=True, stepwise=None if row.bidirectional else EACH)


def _state(name: str, tf: str, reads: str, meaning: str, code: str, each: bool = True) -> Primitive:
    """Scores with a state that starts at zero: one number an expert, or one for all of them."""
    return _routing(
        name, tf, reads, meaning,
        lambda x, y, k, context: types.stateful(x, k, context), code,
        weight=Weight(lambda n, m: (n,) if each else (1,), "zeros", trainable=False),
    )  # fmt: skip


_BATCH = "in training a choice depends on the whole batch, later tokens included"

_ROUTING_ROWS = (
    Primitive(
        "SCORE", "tf.layers.dense", ("in1", "count"),
        "linear map of the channels to a count of scores",
        _projection_rule(COUNT), _product, "project({x}, {w})",
        weight=Weight(lambda n, m: (n, m), "fan_in"), aligned=False, routing=True, stepwise=EACH,
    ),
    Primitive(
        "FROZEN", "tf.layers.dense(trainable=False)", ("in1", "count"),
        "a random linear map that stays as it is: locality-sensitive hashing",
        _projection_rule(COUNT), _product, "project({x}, {w})",
        weight=Weight(lambda n, m: (n, m), "fan_in", trainable=False), aligned=False, routing=True,
        stepwise=EACH,
    ),
    _routing(
        "TOP_K", "tf.math.top_k", "in1 count", "the k largest scores, with their indices",
        lambda x, y, k, context: types.top_k(x, k), "top_k({x}, {k})",
        variants={ENTRIES: "top_entries({x}, {xi}, {k})"}, makes_indices=True,
    ),
    _routing(
        "TAKE", "tf.gather(batch_dims=-1)", "in1 in2", "x over n experts, at the indices of y",
        _binary_rule(types.take), "take_entries({x}, {yi})", reads_indices=True,
    ),
    _routing(
        "PAIR", "x[..., :, None] + y[..., None, :]", "in1 in2",
        "all sums of an entry of x and one of y, over the product of their domains",
        _binary_rule(types.pair), "pair_scores({x}, {y})",
        variants={ENTRIES: "pair_entries({x}, {xi}, {y}, {yi}, {m})"}, makes_indices=True,
    ),
    _routing(
        "STOP_GRAD", "tf.stop_gradient", "in1", "x, through which no gradient passes",
        _unary_rule(types.elementwise), "ops.stop_gradient({x})",
    ),
    _routing(
        "STEP", "tf.cast(x > 0)", "in1", "1 where x is above 0, else 0",
        _unary_rule(types.elementwise), "ops.cast({x} > 0, {x}.dtype)",
    ),
    _routing(
        "NOISE", "tf.random.normal", "in1", "standard normal in training, 0 in evaluation",
        _unary_rule(types.noisy), "noise({x}, run)", training="random", random=True,
    ),
    _routing(
        "UNIFORM", "tf.random.uniform", "in1", "uniform in [0, 1) in training, 0 in evaluation",
        _unary_rule(types.noisy), "uniform({x}, run)", training="random", random=True,
    ),
    _routing(
        "HASH", "tf.gather(table, token_ids)", "count", "one expert, fixed by the token's id",
        lambda x, y, n, context: types.hashed(x, n), "hash_experts({x}, {k}, run)",
        makes_indices=True,
    ),
    _routing(
        "TASK", "tf.constant(task_ids)", "count", "the task that the token's document belongs to",
        lambda x, y, n, context: types.hashed(x, n), "task_entries({x}, {k}, run)",
        makes_indices=True,
    ),
    _routing(
        "BALANCE", "8 steps of Sinkhorn", "in1",
        "scores with equal mass for each expert in training, x in evaluation",
        _unary_rule(types.over_experts), "balance({x}, run)", training=_BATCH,
    ),
    _routing(
        "ASSIGN", "auction", "in1",
        "one expert a token: equally many tokens each in training, the best one in evaluation",
        _unary_rule(types.chosen), "assign({x}, run)", training=_BATCH,
        makes_indices=True,
    ),
    _state(
        "BALANCE_BIAS", "tf.Variable.assign_add", "in1 constant count",
        "x plus a bias an expert, moved after each step towards equal loads of its top k",
        'balance_bias({x}, {w}, "{name}", {k}, {c}, run)',
    ),
    _state(
        "THRESHOLD", "tf.cast(x > tf.Variable())", "in1 constant",
        "1 where x is above its expert's running quantile, which a share of tokens exceeds",
        'threshold({x}, {w}, "{name}", {c}, run)',
    ),
    _routing(
        "TOP_T", "tf.math.top_k along T", "in1 constant",
        "x at its expert's largest share of a sequence's positions, else 0",
        _unary_rule(types.over_experts), "top_positions({x}, {c})",
        bidirectional=True,
    ),
    replace(
        _routing(
            "PLACE", "tf.one_hot(tf.range(T), n)", "in1 count",
            "1 at its own number for each of the first n positions, 0 for later ones",
            lambda x, y, n, context: types.placed(x, n), "at_places({x}, {k})",
        ),
        stepwise=Stepwise("at_places({x}, {k}, {start})"),
    ),
    _routing(
        "PRIORITY", "tf.argsort along T", "in1 constant",
        "gates for which their expert has room, else 0: a share of a sequence, largest gates first",
        _unary_rule(types.limited), "prioritised({x}, {xi}, {n}, {c})",
        bidirectional=True,
    ),
    _routing(
        "STEPS", "tf.Variable.assign_add(1)", "in1", "how many training steps came before",
        lambda x, y, k, context: types.counted(x, context),
        'training_steps({x}, {w}, "{name}", run)',
        weight=Weight(lambda n, m: (1,), "zeros", trainable=False),
    ),
    _routing(
        "SWITCH_LOSS", "x; adds c n sum(f p)", "in1 in2 constant",
        "x; loss for unequal loads of its entries, by probabilities y (Fedus et al. 2021)",
        _binary_rule(types.with_switch_loss), "switch_loss({x}, {xi}, {y}, {c}, run)",
    ),
    _routing(
        "IMPORTANCE_LOSS", "x; adds c CV(sum(x))^2", "in1 constant",
        "x; loss for unequal sums of gates (Shazeer et al. 2017)",
        lambda x, y, size, context: types.with_loss(x, x), "importance_loss({x}, {x}, {c}, run)",
        variants={ENTRIES: "importance_loss({x}, spread_entries({x}, {xi}, {n}), {c}, run)"},
    ),
    _routing(
        "LOAD_LOSS", "x; adds c CV(sum(cdf(y)))^2", "in1 in2 constant",
        "x; loss for unequal expected loads, y the margins in deviations of their noise",
        _binary_rule(types.with_loss), "load_loss({x}, {y}, {c}, run)",
    ),
    _routing(
        "Z_LOSS", "x; adds c mean(logsumexp(x)^2)", "in1 constant",
        "x; loss for large router logits (Zoph et al. 2022)",
        lambda x, y, size, context: types.with_loss(x, x), "z_loss({x}, {c}, run)",
    ),
    _state(
        "SPARSITY_LOSS", "x; adds a weighted L1", "in1 constant count",
        "x; balanced L1 loss whose weight is steered until k gates are above 0 (ReMoE)",
        'sparsity_loss({x}, {w}, "{name}", {k}, {c}, run)', each=False,
    ),
    _state(
        "JOINT_SPARSITY_LOSS", "x; adds a weighted L1", "in1 constant count",
        "SPARSITY_LOSS with one weight for all layers, steered by the mean of their gates (ReMoE)",
        'joint_sparsity_loss({x}, {w}, "{name}", {k}, {c}, run)', each=False,
    ),
    _routing(
        "REINFORCE", "x; adds -c log(p) (reward - mean)", "in1 in2 constant",
        "x; loss on y, the logarithms of the chosen experts' probabilities, by a token's reward",
        _binary_rule(types.with_loss), "reinforce({x}, {y}, {c}, run)",
    ),
    _routing(
        "BASELINE", "x; adds c (reward - mean - y)^2", "in1 in2 constant",
        "x; y foresees a token's reward, and what REINFORCE judges by is the reward beyond it",
        _binary_rule(types.with_loss), "baseline({x}, {y}, {c}, run)",
    ),
    _routing(
        "CONSISTENCY", "x; adds c (KL(p, q) + KL(q, p)) / 2", "in1 constant",
        "x; a step passes twice, with other draws, and its predictions p and q are to agree (THOR)",
        _unary_rule(types.elementwise), "{x}", training="two passes a step",
    ),
)  # fmt: skip

_MARK_ROWS = (
    Primitive(
        "REMEMBER", "tf.identity", ("in1",),
        "x, by which contexts are remembered where the objective has memories",
        _unary_rule(types.remembered), lambda contracted, read, made: 0, "{x}", marks=True,
        stepwise=EACH,
    ),
)  # fmt: skip

PRIMITIVES = Registry("primitive", (*_PRIMER_ROWS, *_ROUTING_ROWS, *_MARK_ROWS))


@lru_cache(maxsize=1 << 16)
def infer(
    name: str, x: StateType, y: StateType, dim: int, context: tuple[int, ...],
    bidirectional: bool = False,
) -> Inferred:  # fmt: skip
    """The type of primitive `name` on inputs of types x and y, or why it has none, in a next-token
    task or a `bidirectional` one. What has a type in the former has it in the latter, too."""
    row = PRIMITIVES[name]
    if bidirectional:
        return (row.unmasked or row.rule)(x, y, dim, context)
    if row.bidirectional:
        kind = f"{name} compares a token with later ones"
        return Mismatch(kind, "; only bidirectional tasks may have it")
    return row.rule(x, y, dim, context)
