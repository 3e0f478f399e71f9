"""What experts have specialised in, against counts made by other means."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from primitives import Graph, build, parse
from primitives.kernels.choices import entry_choices, gate_choices
from primitives.programs.seeds import load_seed
from tests.reference.random_programs import TOP_2
from workers.data.spelling import printable, spelling
from workers.data.tokens import load_tokens
from workers.model.shape import initial_model, layer_graphs, shape_of
from workers.spec.objectives import NEXT_TOKEN
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec, Task
from workers.training.choices import Choices, choices_of
from workers.training.evaluate import evaluate
from workers.training.specialties import EXPERTS, TYPICAL, agreement, specialties

NESTED = """\
dims d0=8
constants c0=0.0
counts n0=4 n1=2
main(x, y):
  scores = SCORE(x) count=n0
  gates = TOP_K(scores) count=n1
  out = outer(x, gates) branch=routed
outer(x, y):
  scores = SCORE(x) count=n1
  out = inner(x, scores) branch=routed
inner(x, y):
  out = CONV 1X1(x) dim=d0
"""


def chosen(
    program: str, task: Task, batches: int = 3
) -> tuple[np.ndarray, list[Choices], np.ndarray]:
    graph = build(parse(program) if "\n" in program else load_seed(program))
    assert isinstance(graph, Graph)
    tokens = load_tokens(task.data)
    shape = (batches, task.training.batch_size)
    windows = NEXT_TOKEN.fixed(tokens.validation, task.model.sequence_length + 1, shape)
    graphs = layer_graphs(graph, task.model)
    values = initial_model(shape_of(graphs, task.model, tokens.vocabulary), 3)
    return *choices_of(graph, task, values, windows), windows


def test_what_hashing_sends_where_is_counted_as_the_hash_says(tiny_task: Task) -> None:
    """Each expert's tokens, loads and lifts, and layers that agree wholly: the hash is the same."""
    task = tiny_task.model_copy(update={"model": tiny_task.model.model_copy(update={"layers": 2})})
    read, calls, windows = chosen("hash_layer", task)
    text = [int(token) for token in windows[..., :-1].reshape(-1)]
    assert read.tolist() == text
    n = calls[0].count
    made = specialties(read, calls, str)
    assert [each["layer"] for each in made] == [1, 2]
    assert made[0]["agreement"] is None and made[1]["agreement"] == pytest.approx(1)
    where = {token: token * 40503 % 65536 * n // 65536 for token in set(text)}
    loads = Counter(where[token] for token in text)
    total, share = len(text), Counter(text)
    for call in made:
        assert (call["experts"], call["tokens"]) == (n, total)
        assert call["dead"] == n - len(loads)
        entropy = -sum(load / total * np.log(load / total) for load in loads.values())
        assert call["entropy"] == pytest.approx(entropy, rel=1e-3)
        assert {each["expert"]: each["load"] for each in call["fullest"]} == pytest.approx(
            {expert: load / total for expert, load in loads.items()}, rel=1e-3
        )
        assert [each["load"] for each in call["fullest"]] == sorted(
            (each["load"] for each in call["fullest"]), reverse=True
        )
        for each in call["fullest"]:
            own = {token: count for token, count in share.items() if where[token] == each["expert"]}
            best = sorted(own.values(), reverse=True)[:TYPICAL]
            assert [value for _, value in each["often"]] == pytest.approx(
                [count / sum(own.values()) for count in best], rel=1e-3
            )
            assert {int(token) for token, _ in each["often"]} <= own.keys()
            for token, lift in each["lifted"]:  # all of it goes there: text over load
                assert own[int(token)] >= 5
                assert lift == pytest.approx(total / sum(own.values()), rel=1e-3)


def test_a_final_run_records_loads_as_scoring_has_them(tiny_task: Task) -> None:
    made = evaluate(TOP_2, tiny_task, Budget("steps", 3), seed=1, test=True)
    assert made.status == "completed", made.reason
    calls = made.experts
    assert len(calls) == tiny_task.model.layers
    used = [1 - call["dead"] / call["experts"] for call in calls]
    assert made.metrics["experts_used"] == pytest.approx(np.mean(used))
    uneven = [np.log(call["experts"]) - call["entropy"] for call in calls]
    assert made.metrics["experts_unevenness"] == pytest.approx(np.mean(uneven), abs=2e-3)
    assert evaluate(TOP_2, tiny_task, Budget("steps", 3), seed=1).experts == ()
    dense = evaluate(load_seed("transformer"), tiny_task, Budget("steps", 3), seed=1, test=True)
    assert dense.experts == ()


def test_no_more_than_the_fullest_experts_are_told_of(tiny_task: Task) -> None:
    read, calls, _ = chosen("peer", tiny_task)
    (made, *_) = specialties(read, calls, str)
    assert made["experts"] == 4096 and len(made["fullest"]) == EXPERTS
    counts = np.bincount(calls[0].experts.reshape(-1), minlength=4096)
    assert made["dead"] == int(np.sum(counts == 0))
    fullest = [each["load"] for each in made["fullest"]]
    assert fullest == pytest.approx((np.sort(counts)[::-1][:EXPERTS] / counts.sum()), rel=1e-3)


def test_calls_inside_others_are_left_out(tiny_task: Task) -> None:
    _, calls, _ = chosen(NESTED, tiny_task)
    assert [call.count for call in calls] == [4] * tiny_task.model.layers


def test_entries_and_gates_over_all_experts_are_the_same_choices() -> None:
    """Of 2 rows, 2 heads, 3 tokens, 2 entries among 4 experts a head."""
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(4)[:2] for _ in range(12)]).reshape(2, 2, 3, 2)
    gates = rng.uniform(0.1, 1, ids.shape).astype(np.float32)
    gates[0, 1, 2, 0] = 0
    experts, weights = (np.asarray(part) for part in entry_choices(gates, ids, 4, (2,)))
    whole = np.zeros((2, 2, 3, 4), np.float32)
    np.put_along_axis(whole, ids, gates, -1)
    every, spread = (np.asarray(part) for part in gate_choices(whole, (2,)))
    for row in range(2):
        for token in range(3):
            wanted = {
                4 * head + ids[row, head, token, entry]: gates[row, head, token, entry]
                for head in range(2)
                for entry in range(2)
                if gates[row, head, token, entry] != 0
            }
            for found, by in ((experts, weights), (every, spread)):
                pairs = zip(found[row, token], by[row, token], strict=True)
                assert {int(e): g for e, g in pairs if e >= 0} == wanted


def test_agreement_is_1_for_a_renaming_and_0_by_chance() -> None:
    rng = np.random.default_rng(1)
    first = rng.integers(0, 8, 4000)
    assert agreement(first, rng.permutation(8)[first]) == pytest.approx(1)
    assert agreement(first, rng.integers(0, 8, 4000)) == pytest.approx(0, abs=0.01)
    # Of few tokens and many experts all seems to agree, unless chance is taken away.
    few = rng.integers(0, 500, 600), rng.integers(0, 500, 600)
    found = agreement(*few)
    assert found is not None and abs(found) < 0.1
    half = np.where(rng.random(4000) < 0.5, first, rng.integers(0, 8, 4000))
    found = agreement(first, half)
    assert found is not None and 0.1 < found < 0.5
    assert agreement(np.zeros(9, int), first[:9]) is None
    assert agreement(np.full(9, -1), first[:9]) is None


def test_tokens_are_spelled_so_that_they_can_be_read(tmp_path: Path) -> None:
    assert printable("é\n\t\\\x1b") == "é\\n\\t\\\\\\x1b"
    path = tmp_path / "text.txt"
    path.write_text("one two\nthree über four five\n" * 400)
    data = DataSpec(source="text", files=(str(path),), tokenizer="bytes")
    by_byte = spelling(data, load_tokens(data))
    assert [by_byte(id) for id in (101, 32, 10, 195, 0, 256)] == [
        "e", " ", "\\n", "<0xc3>", "<|end|>", "<hidden>",
    ]  # fmt: skip
    data = DataSpec(source="text", files=(str(path),), tokenizer="bpe", vocabulary=300)
    tokens = load_tokens(data)
    by_pair = spelling(data, tokens)
    text = "".join(by_pair(int(token)) for token in tokens.train[:40])
    assert "one two\\nthree " in text
    assert by_pair(tokens.vocabulary) == "<hidden>"


def test_masked_tasks_name_hidden_tokens(tiny_task: Task) -> None:
    training = tiny_task.training.model_copy(update={"objective": "masked"})
    task = tiny_task.model_copy(update={"training": training})
    made = evaluate(TOP_2, task, Budget("steps", 2), seed=1, test=True)
    named = {text for call in made.experts for each in call["fullest"] for text, _ in each["often"]}
    assert "<hidden>" in named


def test_loads_of_a_call_sum_to_all_choices(tiny_task: Task) -> None:
    made = evaluate(TOP_2, tiny_task, Budget("steps", 2), seed=2, test=True)
    assert all(
        sum(each["load"] for each in call["fullest"]) == pytest.approx(1, abs=2e-3)
        for call in made.experts
    )
    assert all(one["layer"] <= two["layer"] for one, two in pairwise(made.experts))
