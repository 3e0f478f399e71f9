"""Each routed seed program in evaluation mode against its reference, in every way of running it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from primitives import Graph, build, render
from primitives.kernels.balancing import Run
from primitives.lowering.cost import static_cost
from primitives.lowering.dispatch import Kind, LoweringOptions, strategies
from primitives.lowering.emit import emit
from primitives.lowering.layer import block_function
from primitives.lowering.rewrite import lowered
from primitives.lowering.weights import weight_specs
from primitives.programs.seeds import load_seed, seed_names
from tests.primitives.seed_parts import (
    LENGTH,
    TASKS,
    TOKENS,
    WIDTH,
    X,
    close,
    part,
    passed,
    weights_of,
)
from tests.reference import mixtures, retrieval, routings
from tests.reference.blocks import TRANSFORMER_WEIGHTS, pre_norm_block, squared_relu
from tests.reference.mixtures import Array, Ids, Weights
from tests.reference.random_programs import LARGE_SEEDS

BIDIRECTIONAL = ("expert_choice", "sentence_level", "soft_moe", "v_moe")
KINDS: tuple[Kind, ...] = ("every", "blocks", "entries", "runs")
DEPTH_GATED = ("gate = depth_gate(x)", "out = expert(x, gate) branch=routed")
"""A main for mixture_of_depths, whose gate and feed-forward stand in main."""
FOR_ALL = (
    "cascade", "dense_to_sparse", "expert_choice", "expert_threshold", "mixture_of_depths", "remoe",
    "remoe_joint", "soft_mixture",
)  # fmt: skip
"""Programs with a gate for every expert: all but one close most of them."""


def experts(w: Weights, router: str = "router_scores_score", more: str = "") -> Weights:
    """The weights of a routed feed-forward by the names that the references give them."""
    names = {"up": f"expert_wide_kernel{more}", "down": f"expert_out_kernel{more}"}
    return {to: w[name] for to, name in (names | {"router": router + more}).items() if name in w}


def knuth(tokens: Ids) -> Ids:
    """Experts by multiplicative hashing: the top bits of 16 of the product."""
    return np.array([[(int(i) * 40503 % 2**16) >> 13 for i in row] for row in tokens])


def base(x: Array, w: Weights) -> Array:
    """Released code: experts with a norm and a skip of their own, mixed with what passes by."""
    scores = x @ w["feed_forward_scores_score"]
    return base_given(x, w, scores.argmax(-1))


def base_given(x: Array, w: Weights, ids: Ids) -> Array:
    a = mixtures.sigmoid(np.take_along_axis(x @ w["feed_forward_scores_score"], ids[..., None], -1))
    normed = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    normed = normed * w["layer_norm_scaled_scale"][ids] + w["expert_normed_shift"][ids]
    bank = {"up": w["expert_wide_kernel"], "down": w["expert_narrow_kernel"]}
    fed = x + routings.hash_layer(normed, bank, ids)
    return a * fed + (1 - a) * x


def planes(w: Weights) -> Weights:
    """The lowest bit's plane first: between the two sides of each hash bit."""
    bits = [w[f"hash_bit_sides_frozen{number}"] for number in ("_3", "_2", "")]
    return {"planes": np.stack([bit[:, 1] - bit[:, 0] for bit in bits], -1), **experts(w)}


def prototypes(w: Weights) -> Weights:
    first, second = experts(w), experts(w, more="_2")
    return {name: np.stack([first[name], second[name]]) for name in first}


def deepseek(x: Array, w: Weights) -> Array:
    shared = {
        "shared_up": w["shared_expert_wide_kernel"],
        "shared_down": w["feed_forward_shared_kernel"],
    }
    return routings.deepseek(x, {**experts(w), **shared}, w["router_biased_balance_bias"], k=4)


def mixture_of_depths(x: Array, w: Weights) -> Array:
    router, (c,) = w["depth_gate_score_score"][:, 0], w["depth_gate_deep_threshold"]
    bank = {"up": w["expert_wide_kernel"][0], "down": w["expert_out_kernel"][0], "router": router}
    return routings.mixture_of_depths_threshold(x, bank, c)


def product_keys(w: Weights) -> Weights:
    queries = [w[f"sub_keys_query_kernel{number}"] for number in ("", "_2")]
    keys = {f"keys{i + 1}": w[f"sub_keys_scores_score{n}"] for i, n in enumerate(("", "_2"))}
    norms = {"query_scale": "layer_norm_scaled_scale", "query_shift": "sub_keys_normed_shift"}
    normed = {to: np.stack([w[name], w[f"{name}_2"]]) for to, name in norms.items()}
    return {"query": np.concatenate(queries, -1), **keys, **normed}


def peer(x: Array, w: Weights) -> Array:
    neurons = {"u": w["neuron_hidden_score"][..., 0], "v": w["neuron_out_kernel"][:, 0]}
    return retrieval.peer(x, {**product_keys(w), **neurons}, k=8)


def product_key_memory(x: Array, w: Weights) -> Array:
    return retrieval.pkm(x, {**product_keys(w), "values": w["memory_out_shift"]}, k=8)


def cascade(x: Array, w: Weights) -> Array:
    """The first stage is no expert: its weights have no axis of experts."""
    up = np.stack([w["expert_wide_kernel"], w["expert_wide_kernel_2"][0]])
    down = np.stack([w["feed_forward_first_kernel"], w["expert_out_kernel"][0]])
    gate = {"stop": w["go_gate_score_score"][:, 0], "stop_bias": w["go_gate_biased_shift"][0]}
    return routings.cascade(x, {"up": up, "down": down, **gate})


def temperature(w: Weights) -> float:
    (steps,) = w["temperature_steps_steps"]
    return max(0.3, 2 * math.exp(-steps / 1000))


REFERENCES: dict[str, Callable[[Array, Weights], Array]] = {
    "base": base,
    "cascade": cascade,
    "deepseek": deepseek,
    "dense_to_sparse": lambda x, w: routings.dense_to_sparse(x, experts(w), temperature(w)),
    "demix": lambda x, w: routings.demix(x, experts(w), TASKS),
    "expert_choice": lambda x, w: routings.expert_choice(x, experts(w), share=0.25),
    "expert_threshold": lambda x, w: routings.threshold(
        x, experts(w), w["router_taken_threshold"]
    ),
    "glam": lambda x, w: routings.st_moe(x, experts(w)),
    "gshard": lambda x, w: routings.gshard(x, experts(w)),
    "gshard_full": lambda x, w: routings.gshard(x, experts(w)),
    "hash_layer": lambda x, w: routings.hash_layer(x, experts(w), knuth(TOKENS)),
    "lsh": lambda x, w: routings.lsh(x, planes(w)),
    "mixture_of_depths": mixture_of_depths,
    "noisy_top_k": lambda x, w: routings.noisy_top_k(x, experts(w, "router_clean_score")),
    "peer": peer,
    "prefix_mean": lambda x, w: routings.prefix_mean(x, experts(w)),
    "product_key_memory": product_key_memory,
    "prototypes": lambda x, w: routings.prototypes(x, prototypes(w)),
    "random_expert": lambda x, w: routings.random_expert(
        x, experts(w), (x @ w["router_scores_frozen"]).argmax(-1)
    ),
    "reinforce": lambda x, w: routings.reinforce(x, experts(w)),
    "reinforce_baseline": lambda x, w: routings.reinforce(x, experts(w)),
    "remoe_joint": lambda x, w: routings.remoe(x, experts(w)),
    "remoe": lambda x, w: routings.remoe(x, experts(w)),
    "sentence_level": lambda x, w: routings.sentence_level(x, experts(w, "router_own_score")),
    "sinkhorn": lambda x, w: routings.s_base(x, experts(w)),
    "soft_moe": lambda x, w: routings.soft_moe(
        x,
        {**experts(w, "feed_forward_raw_score"), "scale": w["feed_forward_scores_scale"]},
    ),
    "soft_mixture": lambda x, w: routings.soft_mixture(x, experts(w)),
    "st_moe": lambda x, w: routings.st_moe(x, experts(w)),
    "st_moe_full": lambda x, w: routings.st_moe(x, experts(w)),
    "switch": lambda x, w: routings.switch(x, experts(w)),
    "task_level": lambda x, w: routings.task_level(
        x, {**experts(w), "tasks": w["task_scores_out_score"][:, 0]}, TASKS
    ),
    "thor": lambda x, w: routings.random_expert(
        x, experts(w), (x @ w["router_scores_frozen"]).argmax(-1)
    ),
    "v_moe": lambda x, w: routings.v_moe(x, experts(w), share=0.2625),
    "tree": lambda x, w: routings.tree(
        x, {**experts(w), "inner": w["group_router_scores_score"]}
    ),
}  # fmt: skip
SEEDS = list(REFERENCES)


def routed(name: str) -> Graph:
    return part(name, *(DEPTH_GATED if name == "mixture_of_depths" else ()))


SWIGLU = ("transformer_pp_moe", "campaign_routed")
"""Seed programs whose blocks are no vanilla Transformer's."""


def test_every_seed_program_with_counts_has_a_reference() -> None:
    """The large ones are others with other counts, as test_seed_hashes shows."""
    routed = {name for name in seed_names() if load_seed(name).counts}
    assert {*SEEDS, *SWIGLU} == routed - {*LARGE_SEEDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SWIGLU)
def test_experts_of_transformer_pp(name: str, kind: Kind) -> None:
    """Shazeer 2020, equation 6, for the experts that st_moe's router chooses; campaign_routed adds
    a shift before the last product."""
    graph = part(name)
    weights = weights_of(graph)
    doubles = {key: value.astype(np.float64) for key, value in weights.items()}
    expected = routings.swiglu_experts(X.astype(np.float64), {
        "router": doubles["router_scores_score"], "gate": doubles["expert_gate_kernel"],
        "up": doubles["expert_wide_kernel"], "down": doubles["expert_out_kernel"],
        "shift": doubles.get("expert_shift_shift", np.zeros(1)),
    })  # fmt: skip
    output, run = passed(graph, weights, kind)
    assert close(output, expected) and not run.losses


def varied(name: str, load: Array) -> bool:
    """Whether several experts are used, and not by all tokens."""
    several = np.count_nonzero(load) >= min(2, len(load))
    return several and (name == "soft_mixture" or load.min() < TOKENS.size)


@pytest.mark.parametrize("name", SEEDS)
def test_evaluation_is_that_of_the_paper(name: str) -> None:
    graph = routed(name)
    weights = weights_of(graph)
    doubles = {key: value.astype(np.float64) for key, value in weights.items()}
    expected = REFERENCES[name](X.astype(np.float64), doubles)
    assert np.abs(expected).max() > 0.01
    ways: dict[tuple[str, ...], Kind] = {}
    for kind in KINDS:
        options = LoweringOptions(2, LENGTH, kind=kind, dynamic=True)
        ways.setdefault(emit(graph, WIDTH, options=options).lines, kind)
    few = {"soft_mixture": 1, "expert_choice": 3, "soft_moe": 3}
    assert len(ways) == few.get(name, 2 if name in FOR_ALL else 4)
    outputs = []
    for kind in ways.values():
        output, run = passed(graph, weights, kind)
        assert close(output, expected), kind
        assert not (run.losses or run.updates or run.policies)
        assert varied(name, np.concatenate([np.asarray(load) for load, *_ in run.loads]))
        outputs.append(output)
    assert all(close(output, outputs[0]) for output in outputs)


DENSE_MAIN = (
    "normed = layer_norm(x)",
    "heads = self_attention(normed) branch=8",
    "mixed = CONV 1X1(heads) dim=d0",
    "attended = residual(x, mixed)",
    "renormed = layer_norm(attended)",
    "fed = expert(renormed)",
    "out = residual(attended, fed)",
)
"""A main where one expert is the feed-forward of every token."""


def written(name: str) -> dict[str, str]:
    """Subroutines of a seed program as text."""
    blocks = render(load_seed(name)).strip().split("\n\n")[1:]
    return {block.partition("(")[0]: block for block in blocks}


@pytest.mark.parametrize("name", SEEDS)
def test_blocks_are_the_transformers_but_for_the_feed_forward(name: str) -> None:
    ours, switch, dna = written(name), written("switch"), load_seed(name)
    if name in BIDIRECTIONAL:  # sees both sides
        masked = "  visible = MASK(scores)\n  weights = softmax(visible)"
        switch["self_attention"] = switch["self_attention"].replace(
            masked, "  weights = softmax(scores)"
        )
    for shared in ("self_attention", "multi_head_projection", "softmax", "layer_norm", "residual"):
        assert ours[shared] == switch[shared]
    assert dna.dims[:2] == (8, 1) and dna.constants[1:3] == (1 / math.sqrt(64 / 8), 1e-6)
    main = switch["main"].replace("feed_forward", "expert").splitlines()[1:]
    assert main == [f"  {line}" for line in DENSE_MAIN]
    if name == "base":
        assert ours["main"].splitlines()[1:] == [*main[:4], "  out = feed_forward(attended)"]
    elif name != "mixture_of_depths":
        assert ours["main"] == switch["main"]


def test_the_block_around_a_feed_forward() -> None:
    graph = part("switch", *DENSE_MAIN)
    weights = weights_of(graph)
    named = dict(zip(TRANSFORMER_WEIGHTS, map(tf.constant, weights.values()), strict=True))
    expected = pre_norm_block(tf.constant(X), named, squared_relu)
    assert close(passed(graph, weights).output, expected.numpy())


def test_depths_are_mixed_of_the_whole_block() -> None:
    """y = x + r (f(x) - x), with f the block that passes nothing by."""
    gated, plain = (
        build(load_seed("mixture_of_depths", WIDTH)),
        part("mixture_of_depths", *DENSE_MAIN),
    )
    assert isinstance(gated, Graph)
    w = weights_of(gated)
    names = {"main_fed_kernel": "expert_out_kernel"}
    of_plain = {
        spec.name: w[names.get(spec.name, spec.name)].reshape(spec.shape)
        for spec in weight_specs(plain, WIDTH)
    }
    r = mixtures.sigmoid(X @ w["depth_gate_score_score"])
    r = r * (r > w["depth_gate_deep_threshold"])
    assert 0 < np.count_nonzero(r) < r.size
    expected = X + r * (passed(plain, of_plain).output - X)
    assert close(passed(gated, w).output, expected)


@pytest.mark.parametrize("name", SEEDS)
def test_costs_are_those_that_the_headers_say(name: str) -> None:
    """What a token meets costs what a dense feed-forward does, but for product keys and for a few
    slots; where a token may meet all experts, all of them do, and those that it meets less."""
    graph = build(load_seed(name, 128), bidirectional=True)
    transformer = build(load_seed("transformer", 128))
    assert isinstance(graph, Graph) and isinstance(transformer, Graph)
    fixed = LoweringOptions(kind="every" if name in FOR_ALL else None)
    programs = ((graph, fixed), (graph, LoweringOptions(dynamic=True)), (transformer, None))
    flops, runs, dense = (
        static_cost(each, 128, graph.every, 256, 256, options, transformer).flops_per_token
        for each, options in programs
    )
    assert (runs < 0.9 * flops) == (name in {*FOR_ALL, "tree"} - {"soft_mixture"})
    few = name in ("peer", "product_key_memory", "soft_moe")
    most = 1.13 if name == "sentence_level" else 1.12  # its mean is a product over the sequence
    assert 0.7 <= flops / dense <= 0.82 if few else 1 <= flops / dense <= most


@pytest.mark.parametrize("tokens", [128, 1024, 65536])
def test_thousands_of_experts_are_never_ranked_in_blocks(tokens: int) -> None:
    """To place 32 entries of each token among 4096 experts would take seconds a step."""
    options = LoweringOptions(tokens // 32, 32)
    for name, kind in (
        ("peer", "entries"),
        ("product_key_memory", "entries"),
        ("switch", "blocks"),
    ):
        graph = build(load_seed(name))
        assert isinstance(graph, Graph)
        assert {strategy.kind for strategy in strategies(lowered(graph), 64, options).values()} == {
            kind
        }


@pytest.mark.parametrize("name", SEEDS)
def test_only_programs_for_masked_tasks_see_the_future(name: str) -> None:
    """In evaluation, of the whole block: a prefix gives the prefix of the output."""
    graph, cut = build(load_seed(name), bidirectional=True), 7
    assert isinstance(graph, Graph)
    weights = [tf.constant(array) for array in weights_of(graph).values()]
    block = block_function(graph, WIDTH, LoweringOptions(*X.shape[:2]))
    whole, prefix = (
        np.asarray(
            block(tf.constant(X[:, :end]), weights, Run(tokens=tf.constant(TOKENS[:, :end])))
        )
        for end in (LENGTH, cut)
    )
    assert close(prefix, whole[:, :cut]) == (name not in BIDIRECTIONAL)


@pytest.mark.parametrize("name", ["switch", "peer", "deepseek"])
def test_xla_compiles_blocks_and_their_gradients(name: str) -> None:
    graph = build(load_seed(name))
    assert isinstance(graph, Graph)
    weights = [tf.constant(array, tf.float32) for array in weights_of(graph).values()]
    block = block_function(graph, WIDTH, LoweringOptions(*X.shape[:2]))

    def step(x: tf.Tensor, weights: list[tf.Tensor]) -> list[tf.Tensor]:
        run = Run(training=True, seed=1)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            output = block(x, weights, run)
            total = tf.reduce_sum(tf.square(output)) + sum(run.losses)
        found = tape.gradient(total, weights, unconnected_gradients="zero")
        return [output, *map(tf.convert_to_tensor, found), *run.updates.values()]

    x = tf.constant(X)
    compiled = tf.function(step, jit_compile=True)(x, weights)
    for ours, theirs in zip(compiled, step(x, weights), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * (1 + np.abs(theirs).max()))


@pytest.mark.parametrize("kind", ["every", "entries"])
def test_gates_are_summed_as_the_router_gave_them(kind: Kind) -> None:
    """He 2024, section 3.3: z' = the sum over tokens of an expert's scores, here of all heads."""
    graph = part("peer")
    weights = weights_of(graph)
    _, run = passed(graph, weights, kind)
    ((load, dropped, gates),) = run.loads
    expected, counts = np.zeros(64 * 64), np.zeros(64 * 64)
    doubles = {name: value.astype(np.float64) for name, value in weights.items()}
    w = product_keys(doubles)
    for token in X.astype(np.float64).reshape(-1, WIDTH):
        for head in range(4):
            ids, scores = retrieval.retrieved(token, w, head, 8, retrieval.exhaustive)
            np.add.at(expected, ids, scores)
            np.add.at(counts, ids, 1)
    np.testing.assert_allclose(gates, expected, atol=1e-4)
    np.testing.assert_array_equal(load, counts)
    assert float(dropped) == 0
