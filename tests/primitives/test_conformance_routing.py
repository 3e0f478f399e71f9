"""Each row of the table for routing against the TF function that it is named after.

Values, indices and gradients in evaluation mode must be those of the TF function run on each head
by itself, of scores over experts and of sparse states. What training does beside that is in
test_balancing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from primitives import build, parse
from primitives.graph.build import INPUT, Graph, Node
from primitives.kernels import balancing, routing
from primitives.kernels import dense as kernels
from primitives.kernels import kernels as kernels_by_name
from primitives.kernels.balancing import Run
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.emit import emit
from primitives.lowering.expression import Name, mentioned, template
from primitives.lowering.operation import operation
from primitives.lowering.render import source
from primitives.ops.state import COUNT, ENTRIES, Mismatch, StateType
from primitives.ops.table import PRIMITIVES, Primitive, infer
from primitives.programs.seeds import load_seed, seed_names
from tests.primitives.test_conformance import NAMES as PRIMER
from tests.primitives.test_conformance import ONE, spread
from tests.reference.random_programs import ROUTED_PROGRAMS

BATCH, LENGTH, EXPERTS = 2, 6, 4
CONSTANT = 0.5
NAMES = [name for name, row in PRIMITIVES.items() if row.routing]
TOKENS = np.random.default_rng(3).integers(0, 65536, (BATCH, LENGTH))

SCORES, SPARSE = StateType(COUNT, EXPERTS), StateType(ENTRIES, 2, domain=EXPERTS)
THREE_OF_5 = StateType(ENTRIES, 3, domain=5)


class Given(NamedTuple):
    """Arrays [batch, T, n] of one head: inputs (y if what is made has its heads), their indices,
    the weight; and the count, and the domain of y's indices."""

    x: tf.Tensor
    xi: tf.Tensor | None
    y: tf.Tensor | None
    yi: tf.Tensor | None
    w: tf.Tensor | None
    k: int
    m: int


def chosen(g: Given) -> tuple[tf.Tensor, tf.Tensor]:
    values, ranks = tf.math.top_k(g.x, g.k)
    return values, ranks if g.xi is None else tf.gather(g.xi, ranks, batch_dims=2)


def paired(g: Given) -> Any:
    flat = (*g.x.shape[:2], -1)
    sums = tf.reshape(g.x[..., :, None] + g.y[..., None, :], flat)
    if g.xi is None:
        return sums
    return sums, tf.reshape(g.xi[..., :, None] * g.m + g.yi[..., None, :], flat)


def hashed(g: Given) -> tuple[tf.Tensor, tf.Tensor]:
    table = tf.constant([i * 40503 % 65536 * g.k // 65536 for i in range(65536)])
    return tf.ones((BATCH, LENGTH, 1), tf.float64), tf.gather(table, TOKENS % 2**17)[..., None]


def of_task(g: Given) -> tuple[tf.Tensor, tf.Tensor]:
    task_ids = tf.constant([[number >> 17 for number in row] for row in TOKENS.tolist()])
    return tf.ones((BATCH, LENGTH, 1), tf.float64), tf.math.floormod(task_ids, g.k)[..., None]


def best(g: Given) -> tuple[tf.Tensor, tf.Tensor]:
    ids = tf.argmax(g.x, axis=-1)[..., None]
    return tf.gather(g.x, ids, batch_dims=2), ids


def at_top_positions(g: Given) -> tf.Tensor:
    """Each expert keeps half of the positions."""
    by_expert = tf.transpose(g.x, [0, 2, 1])
    floor = tf.math.top_k(by_expert, LENGTH // 2)[0][..., -1:]
    return tf.transpose(tf.where(by_expert >= tf.stop_gradient(floor), by_expert, 0), [0, 2, 1])


def with_room(g: Given) -> tuple[tf.Tensor, tf.Tensor]:
    """Tokens by their largest gate; an expert takes the first half of T, first choices first."""
    order = tf.argsort(-tf.reduce_max(g.x, axis=-1), axis=-1)
    chosen = tf.transpose(tf.gather(g.xi, order, batch_dims=1), [0, 2, 1])
    queue = tf.one_hot(tf.reshape(chosen, (BATCH, -1)), EXPERTS)
    place = tf.reduce_sum(tf.cumsum(queue, axis=1) * queue, -1)
    kept = tf.transpose(tf.reshape(place <= (LENGTH + 1) // 2, chosen.shape), [0, 2, 1])
    kept = tf.gather(kept, tf.argsort(order, axis=-1), batch_dims=1)
    return g.x * tf.cast(kept, g.x.dtype), g.xi


# What the table says in its `tf` column, and that in evaluation. tf.layers.dense is gone from TF 2:
# without bias and activation it is this tensordot.
REFERENCES: dict[str, tuple[str, Callable[[Given], Any]]] = {
    "SCORE": ("tf.layers.dense", lambda g: tf.tensordot(g.x, g.w, 1)),
    "FROZEN": ("tf.layers.dense(trainable=False)", lambda g: tf.tensordot(g.x, g.w, 1)),
    "TOP_K": ("tf.math.top_k", chosen),
    "TAKE": ("tf.gather(batch_dims=-1)", lambda g: (tf.gather(g.x, g.yi, batch_dims=2), g.yi)),
    "PAIR": ("x[..., :, None] + y[..., None, :]", paired),
    "STOP_GRAD": ("tf.stop_gradient", lambda g: tf.stop_gradient(g.x)),
    "STEP": ("tf.cast(x > 0)", lambda g: tf.cast(g.x > 0, g.x.dtype)),
    "NOISE": ("tf.random.normal", lambda g: tf.zeros_like(g.x)),
    "UNIFORM": ("tf.random.uniform", lambda g: tf.zeros_like(g.x)),
    "HASH": ("tf.gather(table, token_ids)", hashed),
    "TASK": ("tf.constant(task_ids)", of_task),
    "BALANCE": ("8 steps of Sinkhorn", lambda g: g.x),
    "ASSIGN": ("auction", best),
    "BALANCE_BIAS": ("tf.Variable.assign_add", lambda g: g.x + tf.stop_gradient(g.w)),
    "THRESHOLD": ("tf.cast(x > tf.Variable())", lambda g: tf.cast(g.x > g.w, g.x.dtype)),
    "TOP_T": ("tf.math.top_k along T", at_top_positions),
    "SWITCH_LOSS": ("x; adds c n sum(f p)", lambda g: g.x),
    "IMPORTANCE_LOSS": ("x; adds c CV(sum(x))^2", lambda g: g.x),
    "LOAD_LOSS": ("x; adds c CV(sum(cdf(y)))^2", lambda g: g.x),
    "Z_LOSS": ("x; adds c mean(logsumexp(x)^2)", lambda g: g.x),
    "PLACE": (
        "tf.one_hot(tf.range(T), n)",
        lambda g: tf.zeros_like(g.x[..., :1]) + tf.one_hot(tf.range(LENGTH), g.k, dtype=g.x.dtype),
    ),
    "PRIORITY": ("tf.argsort along T", with_room),
    "STEPS": (
        "tf.Variable.assign_add(1)",
        lambda g: tf.ones_like(g.x[..., :1]) * tf.stop_gradient(g.w),
    ),
    "SPARSITY_LOSS": ("x; adds a weighted L1", lambda g: g.x),
    "JOINT_SPARSITY_LOSS": ("x; adds a weighted L1", lambda g: g.x),
    "BASELINE": ("x; adds c (reward - mean - y)^2", lambda g: g.x),
    "CONSISTENCY": ("x; adds c (KL(p, q) + KL(q, p)) / 2", lambda g: g.x),
    "REINFORCE": ("x; adds -c log(p) (reward - mean)", lambda g: g.x),
}

INPUTS: dict[str, list[tuple[StateType, StateType]]] = {
    "SCORE": [(SCORES, ONE)],
    "FROZEN": [(SCORES, ONE)],
    "TOP_K": [(SCORES, ONE), (THREE_OF_5, ONE)],
    "TAKE": [(SCORES, SPARSE), (StateType(COUNT, 80), StateType(ENTRIES, 3, domain=80))],
    "PAIR": [(SCORES, StateType(COUNT, 5)), (SPARSE, THREE_OF_5), (SPARSE, SPARSE)],
    "SWITCH_LOSS": [(SPARSE, SCORES)],
    "LOAD_LOSS": [(SCORES, SCORES), (SPARSE, SCORES), (SCORES, SPARSE)],
    "REINFORCE": [(SCORES, SCORES), (SPARSE, SCORES), (SCORES, ONE)],
    "BASELINE": [(SCORES, ONE), (SPARSE, ONE)],
    "PRIORITY": [(SPARSE, ONE)],
    **{
        name: [(SCORES, ONE), (SPARSE, ONE)]
        for name in ("STOP_GRAD", "STEP", "NOISE", "UNIFORM", "IMPORTANCE_LOSS", "Z_LOSS")
    },
}
"""Types of inputs 1 and 2; scores over experts and nothing where a row is not named."""


@dataclass
class Case:
    """One op on arrays: `ids` of x and y may lack branch axes that the values have."""

    name: str
    types: tuple[StateType, StateType]
    supports: tuple[StateType, StateType]
    context: tuple[int, ...]
    values: list[tf.Tensor]
    ids: list[tf.Tensor]
    w: tf.Tensor | None = None
    count: int = 2

    def node(self) -> Node:
        row = PRIMITIVES[self.name]
        made = infer(self.name, *self.types, self.count, self.context, bidirectional=True)
        assert isinstance(made, StateType), f"{self.name} on {self.types}: {made}"
        inputs, value = ((0, 1) if row.binary else (0,)), CONSTANT * ("constant" in row.reads)
        return Node(self.name, inputs, value, self.context, made, "out", self.count)

    def run(self, run: Run) -> Any:
        """The lowering's value, or value and indices."""
        sources = [
            Node(INPUT, (), 0, (), kind, "x", support=2 + i if kind.axis == ENTRIES else -1)
            for i, kind in enumerate(self.types)
        ]
        supports = [Node(INPUT, (), 0, (), kind, "x") for kind in self.supports]
        names = {2: "xi", 3: "yi"}
        states = [*sources, *supports]
        code = source(operation(states, self.node(), ["x", "y"], Name("w"), "w", names))
        values = {"x": self.values[0], "y": self.values[1], "xi": self.ids[0], "yi": self.ids[1]}
        modules = {**vars(kernels), **vars(routing), **vars(balancing)}
        return eval(code, modules, {**values, "w": self.w, "run": run})

    def by_tf(self) -> Any:
        """The TF function on every head by itself."""
        wanted = self.node().type.branches
        x, y = (
            spread(value, kind.branches, wanted) if len(kind.branches) <= len(wanted) else None
            for value, kind in zip(self.values, self.types, strict=True)
        )
        xi, yi = (
            spread(ids, kind.branches, wanted) if kind.axis == ENTRIES else None
            for ids, kind in zip(self.ids, self.supports, strict=True)
        )
        w = None if self.w is None else tf.reshape(self.w, (-1, *self.w.shape[len(wanted) :]))
        runs = [
            REFERENCES[self.name][1](
                Given(*(None if a is None else a[:, head] for a in (x, xi, y, yi)),
                      None if w is None else w[head], self.count, self.types[1].domain)
            )
            for head in range(x.shape[1])
        ]  # fmt: skip
        return tf.nest.map_structure(lambda *heads: self.joined(heads, wanted), *runs)

    @staticmethod
    def joined(heads: tuple[tf.Tensor, ...], wanted: tuple[int, ...]) -> tf.Tensor:
        made = tf.stack(heads, axis=1)
        return tf.reshape(made, (BATCH, *wanted, *made.shape[2:]))


def with_branches(kind: StateType, branches: tuple[int, ...]) -> StateType:
    return StateType(kind.axis, kind.size, branches, domain=kind.domain)


def case(
    name: str, types: tuple[StateType, StateType], branches: tuple[tuple[int, ...], ...], seed: int
) -> Case:
    """`branches` of x, of its indices, of y, of its indices, and around the instruction."""
    rng, row = np.random.default_rng(seed), PRIMITIVES[name]
    if not row.binary:
        read = branches[:2] if "in1" in row.reads else ((), ())
        branches = (*read, (), (), branches[-1])
    of = [with_branches(kind, at) for kind, at in zip(types, branches[::2], strict=False)]
    supports = [with_branches(kind, at) for kind, at in zip(types, branches[1::2], strict=False)]
    values, ids = [], []
    for kind, support in zip(of, supports, strict=True):
        drawn = rng.standard_normal((BATCH, *kind.branches, LENGTH, kind.size))
        values.append(tf.constant(drawn))
        places = rng.random((BATCH, *support.branches, LENGTH, kind.domain or 1)).argsort(-1)
        ids.append(tf.constant(places[..., : kind.size]))
    context = branches[-1] if row.weight else ()
    made = Case(name, (of[0], of[1]), (supports[0], supports[1]), context, values, ids)
    if row.weight:
        shape = row.weight.shape(types[0].size, made.node().type.size)
        made.w = tf.constant(rng.standard_normal((*context, *shape)))
    return made


BRANCHES: list[tuple[tuple[int, ...], ...]] = [
    ((), (), (), (), ()),
    ((3,), (3,), (), (), (3,)),
    ((), (), (3,), (), (3,)),
    ((3,), (), (3,), (3,), (3,)),
    ((3, 2), (3,), (3,), (), (3, 2)),
]


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_is_what_tf_gives(name: str) -> None:
    for types in INPUTS.get(name, [(SCORES, ONE)]):
        for seed, branches in enumerate(BRANCHES):
            compare(case(name, types, branches, seed))


def compare(made: Case) -> None:
    run, node, inputs = Run(tokens=tf.constant(TOKENS)), made.node(), made.values
    inputs = [*inputs, made.w] if made.w is not None else inputs
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        pairs = [one if isinstance(one, tuple) else (one,) for one in (made.run(run), made.by_tf())]
        if len(pairs[0]) < len(pairs[1]):  # an op that keeps its input's indices
            pairs[1] = pairs[1][:1]
        shape = (BATCH, *node.type.branches, LENGTH, node.type.size)
        ours, theirs = ([tf.broadcast_to(part, shape) for part in pair] for pair in pairs)
        mix = tf.constant(np.random.default_rng(1).standard_normal(shape))
        totals = tf.reduce_sum(ours[0] * mix), tf.reduce_sum(theirs[0] * mix)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-12, err_msg=f"{made.types}")
    zero = tf.UnconnectedGradients.ZERO
    for mine, other in zip(
        *(tape.gradient(total, inputs, unconnected_gradients=zero) for total in totals), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9, err_msg=f"{made.types}")
    assert (run.losses, run.updates, run.policies) == ([], {}, [])


def test_table_names_every_tf_function() -> None:
    table = {name: PRIMITIVES[name].tf for name in NAMES}
    assert table == {name: tf_name for name, (tf_name, _) in REFERENCES.items()}
    assert len(PRIMITIVES) == 39 + 28 + 1, "and the mark"
    assert [name for name in NAMES if PRIMITIVES[name].bidirectional] == ["TOP_T", "PRIORITY"]
    assert {name for name in NAMES if PRIMITIVES[name].training} == {
        "NOISE", "UNIFORM", "BALANCE", "ASSIGN", "CONSISTENCY",
    }  # fmt: skip


@pytest.mark.parametrize("name", [*PRIMER, *NAMES])
def test_a_sparse_state_is_computed_with_as_its_values_are(name: str) -> None:
    """Whatever fits it and reads no indices has the lowering that as many scores have."""
    row = PRIMITIVES[name]
    made = infer(name, SPARSE, SPARSE, 2, ())
    if isinstance(made, Mismatch) or row.variants.keys() & {ENTRIES} or "i}" in row.code:
        return
    codes = set()
    for kind in (SPARSE, StateType(COUNT, 2)):
        sources = [Node(INPUT, (), 0, (), kind, "x", support=0) for _ in range(2)]
        inputs = (0, 1) if row.binary else (0,)
        node = Node(name, inputs, 0.5, (), made, "out", 2)
        codes.add(operation(sources, node, ["x", "y"], Name("w"), "w", {0: "xi"}))
    assert len(codes) == 1


def test_of_equal_scores_the_first_is_chosen() -> None:
    x = tf.constant([[[1.0, 3.0, 3.0, 2.0, 3.0]]])
    for k, expected in ((1, [1]), (2, [1, 2]), (3, [1, 2, 4]), (4, [1, 2, 4, 3])):
        assert np.array(routing.top_k(x, k)[1])[0, 0].tolist() == expected


def test_hashing_spreads_token_ids_evenly() -> None:
    for n in (2, 8, 16, 64):
        for vocabulary in (256, 4096):
            run = Run(tokens=tf.range(vocabulary)[None])
            ids = routing_ids(balancing.hash_experts(tf.zeros((1, vocabulary, 1)), n, run))
            counts = np.bincount(ids.ravel(), minlength=n)
            assert ids.shape == (1, vocabulary, 1)
            assert counts.max() <= 1.5 * vocabulary / n and counts.min() >= 0.5 * vocabulary / n


def routing_ids(made: tuple[tf.Tensor, tf.Tensor]) -> np.ndarray:
    return np.array(made[1])


def test_hashing_asks_for_token_ids() -> None:
    with pytest.raises(ValueError, match=r"call it with tokens=\[batch, T\]"):
        balancing.hash_experts(tf.zeros((1, 2, 1)), 4, Run())


@pytest.mark.parametrize("name", NAMES)
def test_costs_are_linear_maps_or_one_a_number(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    flops = PRIMITIVES[name].flops
    if name in ("SCORE", "FROZEN"):
        assert flops(16, 16, 8) == 2 * 16 * 8
    else:
        assert flops(16, 24, 8) == 8
    assert flops(16, 8 * 24, 8 * 8) == 8 * flops(16, 24, 8)


def test_no_state_can_take_a_kernels_name() -> None:
    """All that any lowering calls is a kernel, and a state that would be called like one is not."""
    called = {name for row in PRIMITIVES.values() for name in row_calls(row)}
    for dna in [*ROUTED_PROGRAMS, *map(load_seed, seed_names())]:
        graph = build(dna, bidirectional=True)
        assert isinstance(graph, Graph)
        for kind in ("every", "blocks", "entries", "runs"):
            factor = 1.0 if kind == "blocks" else None
            options = LoweringOptions(capacity_factor=factor, kind=kind, dynamic=True)
            called |= emit(graph, 16, options=options, record="loads").mentioned.functions
    assert called <= set(kernels_by_name())
    assert len(called) > 30
    graph = build(
        parse("""dims d0=8
    constants c0=0.0

    main(x, y):
      out = over(x)

    over(x, y):
      rms = ABS(x)
      out = ADD(x, rms)
    """)
    )
    assert isinstance(graph, Graph)
    assert emit(graph, 16).lines[0] == "over_rms_2 = ops.abs(x)"


def row_calls(row: Primitive) -> set[str]:
    codes = (row.code, *row.variants.values())
    return {name for code in codes for name in mentioned(template(code)).functions}
