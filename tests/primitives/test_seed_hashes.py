"""What must not change when seed programs are written in another way: their functions' hashes, and
how near they are to what Primer found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from primitives import DNA, Graph, build, parse, render
from primitives.language.dna import MIDDLE
from primitives.lowering.cost import static_cost
from primitives.programs.seeds import load_seed, other_graph, seed_names, seed_text
from tests.reference.random_programs import LARGE_SEEDS
from workers.model.shape import layer_graphs
from workers.spec.task import ModelSpec

HASHES = {
    "base": "f5881bb278beb2f3efb57fec1fb1a589",
    "campaign_conv": "bcbf85fbdf041fd59cd53c1640245467",
    "campaign_dense": "b6eb2fa674e795416b6d6ee822a55d53",
    "campaign_pp": "ce01608d5979f74b613e3edc11ae0b74",
    "campaign_routed": "72a5bbc16f0e6b2fcd4333e4bdd3ff02",
    "campaign_vanilla": "4ebb3e37befb8af80fe13b3070920578",
    "cascade": "c1b2ccbd2f9d8a69977d4316b03092a0",
    "deepseek": "3257e1f0d8d9fef6f4d4509f18fd5677",
    "demix": "236c6c9c8541cb8ef1801b176ffe86cb",
    "dense_to_sparse": "aa9978e28e83ff0820954feef7a06ec3",
    "expert_threshold": "b25fc001dd980bc8c5c97d715aaeeff5",
    "glam": "77d3a33b82a803a7ce7b2298578c94c9",
    "grouped_query": "417f17f153638e8029c5e255b2fb48b8",
    "gshard": "79e291df5f057a5e03f1bfa769d4d47c",
    "gshard_full": "2406a7ec0f5b028f87408e51c2d71765",
    "hash_layer": "5a29530daf1150271f9cbf00d877a390",
    "lsh": "371231cd3b61d16a2664a1699964378f",
    "mixture_of_depths": "cb166c4177fbc3e80568adcea83c84b6",
    "multi_query": "7a0cdc88d93c30e24a4fba0c6304c422",
    "noisy_top_k": "717f97416ea8ee588447cb7a4e66b217",
    "peer": "632b3777dad4ed3ce43857068ae3de84",
    "prefix_mean": "326a2a21b87038e924e9f4c73e383e9b",
    "primer": "0bbf273784f5da085bbcfd7ce8b4274c",
    "primer_ez": "10e7f8c957abf702e332428342af167a",
    "product_key_memory": "8210231a7e4e13cd55d4fe97e8f7be3f",
    "prototypes": "a9fb2be0f648188f030344b1c098bbec",
    "random_expert": "5040c2c05990e29b5bbeb8b449a65340",
    "reinforce": "bb66209552dd1eabd6f0f83822e840fa",
    "reinforce_baseline": "79b95b21f47380c7af2d2c678bc48747",
    "remoe": "c0e6147002f98b6b3a5e300d794cf638",
    "remoe_joint": "c04855331bd1bd666fc45fa84fc03a61",
    "sinkhorn": "e51fb66da0cf415a56b5d617b2dc35ed",
    "soft_mixture": "0a38f3d5a9b48ba8b4ef1e0facfe6c5a",
    "st_moe": "1e9c97fa04e22a313e7d2f9d02db5c93",
    "st_moe_full": "659247298881fdfeaecd1c2bc4faed9b",
    "switch": "dc16cc50852941f9fa19590d5266eca6",
    "task_level": "7e46306ff7beb2fc4afe790d38c75834",
    "thor": "8f6b5724f926189a39300570426a93ad",
    "transformer": "38e0e104f41d2e50d3b6680a2e2fd06c",
    "transformer_gelu": "527089055612d67cc30bebd494149fbb",
    "transformer_pp": "07ef466e958f25cba44e9a738556ad1c",
    "transformer_pp_moe": "57e3feea8bfd2fbd08cd0e29be6c5c72",
    "tree": "5552fe1ba73f051851a38acf93a19299",
}
"""Canonical hashes at d_model 128, where 1/sqrt(d_head) is 0.25. They are those that the programs
had while that constant was 0.25 at every width and routed programs projected queries, keys and
values in three instructions: campaigns find functions that they know by them. (expert_choice is
left out: its attention has come to see both sides; so does that of sentence_level,
soft_moe and v_moe. peer and product_key_memory are other functions since their queries are normed,
as in their papers.)"""


def digest(dna: DNA) -> str:
    graph = build(dna)
    assert isinstance(graph, Graph)
    return graph.hash


def test_every_seed_program_has_its_hash_on_record() -> None:
    masked = {"expert_choice", "sentence_level", "soft_moe", "v_moe"}
    assert {*HASHES, *masked, *LARGE_SEEDS} == set(seed_names())


@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("campaign_conv", "2ffe397495d03891adcf62a0df4c4571"),
        ("campaign_dense", "94240615a97d16316127a8d8d06d9668"),
        ("campaign_pp", "b41376c95681cc519fff4f7eac5fd038"),
        ("campaign_routed", "ff2fcc7e8e9402eab61845159ae486ee"),
        ("campaign_vanilla", "576d222977b677a05e70318bbd19cc85"),
    ],
)
def test_what_campaigns_found_is_what_their_database_has(name: str, recorded: str) -> None:
    """At d_model 256; the databases are in docs/results."""
    assert digest(load_seed(name, 256)) == recorded


@pytest.mark.parametrize("name", HASHES)
def test_hashes_stay_as_they_were_where_the_scale_does(name: str) -> None:
    assert digest(load_seed(name, 128)) == HASHES[name]
    assert digest(load_seed(name, 64)) != HASHES[name]


def test_the_paper_sized_peer_is_peer_with_other_options() -> None:
    """1,048,576 experts, 8 heads, the 16 nearest of each, in the middle block (He 2024)."""
    large = load_seed("peer_million", 128)
    assert large.counts == (1024, 16, 1) and large.every == MIDDLE
    text = render(replace(large, counts=load_seed("peer").counts, every=1))
    assert text.count("retrieval(x) branch=8") == 1
    assert (
        digest(parse(text.replace("(x) branch=8\n  out = neuron", "(x) branch=4\n  out = neuron")))
        == (HASHES["peer"])
    )
    graph = build(large)
    assert isinstance(graph, Graph)
    cost = static_cost(graph, 256, 3, 256, 256, other=build(load_seed("transformer", 256)))
    assert cost.parameters > 2 * 1024**2 * 256


def test_the_paper_sized_product_keys_are_product_key_memory_with_other_options() -> None:
    """262,144 keys, the 32 nearest of each of 4 heads, in the middle block (Lample et al. 2019)."""
    large, small = load_seed("product_key_large", 128), load_seed("product_key_memory", 128)
    assert large.counts == (512, 32) and large.every == MIDDLE
    assert digest(replace(large, counts=small.counts, every=1)) == HASHES["product_key_memory"]


PROJECT_OTHERWISE = {"campaign_conv", "campaign_dense", "campaign_routed"}
"""Seed programs that a campaign found: tanh of the projection, no keys, or no projection at all."""


@pytest.mark.parametrize("name", sorted({*seed_names()} - PROJECT_OTHERWISE))
def test_projections_of_heads_are_one_gene(name: str) -> None:
    """So that Primer's depthwise convolution of queries, keys and values is one insertion away."""
    text = render(load_seed(name))
    attention = text.partition("self_attention(x, y):")[2].partition("\n\n")[0]
    assert attention.count("multi_head_projection(x)") == (2 if name == "primer" else 3)
    assert text.count("\nmulti_head_projection(x, y):\n") == 1
    if name not in ("primer", "primer_ez"):
        before = "multi_head_projection(x, y):\n  out = CONV 1X1(x) dim=d1\n"
        after = before.replace("out =", "wide =") + "  out = DCONV 3X1(wide)\n"
        assert before in text
        child = build(parse(text.replace(before, after)), bidirectional=True)
        assert isinstance(child, Graph)
        assert sum(node.op == "DCONV 3X1" for node in child.nodes) == 3


@pytest.mark.parametrize("width", [16, 64, 128])
def test_blocks_beside_a_candidates_are_those_of_the_models_width(width: int) -> None:
    ours = digest(load_seed("transformer", width))
    spaced = build(replace(load_seed("switch", width), every=2))
    assert isinstance(spaced, Graph)
    for other in ("transformer", seed_text("transformer")):
        assert other_graph(other, width).hash == ours
        spec = ModelSpec(d_model=width, layers=2, other=other)
        assert ours in {graph.hash for graph in layer_graphs(spaced, spec)}
