"""Texts of several sources: which task a token belongs to, from the corpus to an exported model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from primitives.graph.build import build
from primitives.kernels.tasks import SPAN, ids_of, tasks_of
from primitives.language.text import parse
from primitives.programs.seeds import load_seed
from search.campaign.finals import titles
from search.campaign.progress import FinalRow
from tests.workers.exports import load_module
from workers.data.corpora import CORPORA, Corpus, DataError, Document, documents
from workers.data.similar import similar_segments
from workers.data.splits import SPLITS
from workers.data.tokens import load_tokens
from workers.export.export import export_candidate
from workers.model.model import logits, model_layers, token_losses
from workers.model.shape import initial_model, model_shape
from workers.spec.metrics import METRICS, all_scores, by_task, of_task
from workers.spec.objectives import OBJECTIVES
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec
from workers.training.evaluate import evaluate

LETTERS = {"later": "bcd", "earlier": "xyz"}
"""Alphabets of two sources."""

BY_TASK = parse("""
dims d0=8
constants c0=0.0
counts n0=2

main(x, y):
  task = TASK(x) count=n0
  own = leaf(x, task) branch=routed
  out = ADD(x, own)

leaf(x, y):
  out = CONV 1X1(x) dim=d0
""")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    for name, letters in LETTERS.items():
        (root / name).mkdir()
        for number in range(8):
            text = "".join(rng.choice(list(letters), 90))
            (root / name / f"{number}.txt").write_text(text)
    return root


@pytest.fixture(scope="module")
def data(folder: Path) -> DataSpec:
    sources = {
        name: DataSpec(source="text", files=(str(folder / name / "*.txt"),)) for name in LETTERS
    }
    return DataSpec(sources=sources)


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIMEVO_CACHE", str(folder / "cache"))


def small(data: DataSpec, **training: Any) -> Task:
    return Task(
        data=data,
        model=ModelSpec(d_model=16, layers=1, sequence_length=12),
        training=TrainingSpec(batch_size=4, eval_batches=2, **training),
    )


def letters(ids: np.ndarray) -> set[str]:
    return set(bytes(ids.astype(np.uint8)).decode().replace("\0", ""))


def test_every_token_says_its_source(data: DataSpec) -> None:
    """Sources are numbered in the order of their names, however they are written."""
    tokens = load_tokens(data)
    assert list(tokens.tasks) == ["earlier", "later"]
    for split in SPLITS:
        array = getattr(tokens, split)
        assert array.dtype == np.uint32
        for number, name in enumerate(tokens.tasks):
            own = array[tasks_of(array) == number]
            assert len(own) and letters(ids_of(own)) == set(LETTERS[name])
    assert np.array_equal(tokens.of_task("later"), tokens.test[tasks_of(tokens.test) == 1])
    turned = DataSpec(sources=dict(reversed(data.sources.items())))
    assert load_tokens(turned).train.filename == tokens.train.filename


def test_folders_may_be_tasks(folder: Path, data: DataSpec) -> None:
    files = (str(folder / "*" / "*.txt"),)
    spec = DataSpec(source="text", files=files, options={"tasks": "folders"})
    assert {document.task for document in documents(spec)} == set(LETTERS)
    tokens = load_tokens(spec)
    assert list(tokens.tasks) == ["earlier", "later"]
    assert letters(ids_of(tokens.of_task("earlier"))) <= set(LETTERS["earlier"])
    plain = DataSpec(source="text", files=files)
    assert load_tokens(plain).train.dtype == np.uint8
    assert np.array_equal(load_tokens(plain).train, ids_of(tokens.train))
    with pytest.raises(DataError, match=r"options\.tasks is 'files': write folders or none"):
        list(documents(DataSpec(source="text", files=files, options={"tasks": "files"})))


def test_bpe_is_shared_by_all_sources(data: DataSpec) -> None:
    spec = DataSpec(sources=data.sources, tokenizer="bpe", vocabulary=300)
    tokens = load_tokens(spec)
    for number, name in enumerate(tokens.tasks):
        own = tokens.test[tasks_of(tokens.test) == number]
        bytes_read = sum(
            len(document.text) + 1
            for document in documents(spec.sources[name])
            if len(own) and document.text[:40] in _decoded(tokens, own)
        )
        assert tokens.tasks[name] == pytest.approx(bytes_read / len(own))
        assert tokens.tasks[name] > 1
    assert ids_of(tokens.train).max() < tokens.vocabulary


def _decoded(tokens: Any, array: np.ndarray) -> str:
    import tokenizers

    file = Path(tokens.train.filename).with_name("tokenizer.json")
    text: str = tokenizers.Tokenizer.from_file(str(file)).decode(ids_of(array).tolist())
    return text


def test_similar_segments_are_of_the_text_alone() -> None:
    draws = np.random.default_rng(0).integers(0, 30, 80)
    words = np.frombuffer(b"".join(b"word%02d " % draw for draw in draws), np.uint8)
    marked = words.astype(np.uint32) + np.uint32(SPAN) * (np.arange(len(words)) // 100)
    marked = marked.astype(np.uint32)
    assert np.array_equal(similar_segments(marked, 20, 2), similar_segments(words, 20, 2))


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (["a", ""], "document '1' has no task, and those before it have tasks"),
        (["", "a"], "document '1' has the task 'a', and those before it have none"),
    ],
)
def test_a_corpus_has_tasks_or_none(
    tasks: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Document(str(i), "some text", tasks[i % 2]) for i in range(8)]
    row = Corpus("filed", "a test", lambda source: iter(found), lambda source: {"of": tasks})
    monkeypatch.setitem(CORPORA, "filed", row)
    with pytest.raises(DataError, match=said):
        load_tokens(DataSpec(source="filed"))


def test_wrong_sources_are_told(data: DataSpec, folder: Path) -> None:
    part = data.sources["later"]
    for wrong, said in (
        ({"sources": {"a": part}, "files": ("x",)}, "'files' and 'sources' do not go together"),
        ({"sources": {"a": DataSpec(tokenizer="bpe")}}, "source 'a' has a tokenizer of its own"),
        ({"sources": {"a b": part}}, "should match pattern"),
        ({"sources": {"a": data}}, "source 'a' has a sources of its own"),
    ):
        with pytest.raises(ValidationError, match=said):
            DataSpec(**wrong)
    with pytest.raises(ValidationError, match="transfer is one text, without sources"):
        Task(data=data, transfer=data)
    missing = DataSpec(source="text", files=(str(folder / "none.txt"),))
    with pytest.raises(DataError, match="no file matches"):
        load_tokens(DataSpec(sources={"a": part, "b": missing}))


def test_a_task_without_sources_is_written_as_before(data: DataSpec) -> None:
    assert "sources" not in DataSpec().model_dump(mode="json")
    again = Task.model_validate_json(Task(data=data).model_dump_json())
    assert again.data == data and list(again.data.sources) == list(data.sources)


@pytest.mark.parametrize("objective", ["next_token", "masked", "trime"])
def test_what_is_predicted_has_no_task_in_it(objective: str) -> None:
    """A program that does not ask for tasks trains and scores as on the text alone; one that does
    has another result where they differ."""
    task = small(DataSpec(), objective=objective)
    row, windows = OBJECTIVES[objective], np.random.default_rng(0).integers(0, 256, (4, 13))
    tasks = np.random.default_rng(1).integers(0, 9, (4, 13))

    def losses(dna: Any, windows: np.ndarray) -> np.ndarray:
        graph = build(dna)
        shape = model_shape(graph, task.model, 256 + row.extra_rows)
        weights, layers = initial_model(shape, 1), model_layers(graph, task)
        seed = np.zeros(2, "int32")
        return np.asarray(token_losses(layers, weights, windows, True, seed, row)[0])

    for dna, same in ((load_seed("transformer", 16), True), (BY_TASK, False)):
        plain, marked = losses(dna, windows), losses(dna, windows + SPAN * tasks)
        assert np.allclose(plain, marked, atol=1e-6) == same
    even = losses(BY_TASK, windows + 2 * SPAN * tasks)  # modulo 2
    assert np.allclose(losses(BY_TASK, windows), even, atol=1e-6)


def test_each_task_has_scores(data: DataSpec) -> None:
    """Equal ones where the texts are equal."""
    made = evaluate(BY_TASK, small(data), Budget("steps", 20), 1, test=True)
    found = by_task(made.metrics)
    assert {*found} == {f"test_{it}/{name}" for it in ("loss", "bpb") for name in LETTERS}
    assert not {*found} & {*METRICS} and {*found} <= {*all_scores(made)}
    mixed = np.mean([found[f"test_loss/{name}"] for name in LETTERS])
    assert made.test_loss == pytest.approx(mixed, abs=0.4)
    assert found["test_loss/later"] != found["test_loss/earlier"]
    assert found["test_bpb/later"] == pytest.approx(found["test_loss/later"] / np.log(2))
    twins = DataSpec(sources=dict.fromkeys("ab", data.sources["later"]))
    same = evaluate(load_seed("transformer", 16), small(twins), Budget("steps", 2), 1, test=True)
    assert same.metrics["test_loss/a"] == same.metrics["test_loss/b"]
    assert not by_task(evaluate(BY_TASK, small(data), Budget("steps", 1), 1).metrics)


def test_scores_of_tasks_stand_in_the_final_table() -> None:
    row = FinalRow.__new__(FinalRow)
    object.__setattr__(
        row, "tested", {of_task("test", "later").format("bpb"): 1.0, "test_ece": 0.1}
    )
    assert titles([row]) == {"test_bpb/later": "later bits/byte", "test_ece": "calibration error"}


def test_an_exported_model_is_told_the_task(data: DataSpec, tmp_path: Path) -> None:
    task = small(data)
    export_candidate(
        BY_TASK, tmp_path / "it", task=task, budget=Budget("steps", 30), seed=3,
        card={"program": "it"},
    )  # fmt: skip
    card = json.loads((tmp_path / "it" / "card.json").read_text())
    assert by_task(card["exported"]) == pytest.approx(by_task(card["weights"]), rel=1e-4)
    assert card["exported"]["test_loss"] == pytest.approx(card["weights"]["test_loss"], rel=1e-4)
    readme = " ".join((tmp_path / "it" / "README.md").read_text().split())
    assert "ids plus 131,072 times the number of the task (0 is earlier, 1 is later)" in readme
    model = load_module((tmp_path / "it" / "it_block.py").read_text()).build_model()
    model.load_weights(tmp_path / "it" / "model.weights.h5")
    prompt = np.array([[120, 98, 121], [98, 120, 99]])
    outputs = [np.asarray(model(prompt + SPAN * number)) for number in range(3)]
    assert not np.allclose(outputs[0], outputs[1], atol=1e-3)
    np.testing.assert_allclose(outputs[0], outputs[2], atol=1e-6)
    values = [np.asarray(weight) for weight in named(model, task).values()]
    layers = model_layers(build(BY_TASK), task)
    tokens = np.random.default_rng(0).integers(0, 256, (2, 12)) + SPAN * np.arange(12)
    ours, _ = logits(layers, values, tokens, False, np.zeros(2, "int32"))
    np.testing.assert_allclose(model(tokens), ours, atol=1e-5)
    for use_cache in (True, False):
        for number in (0, 1):
            found = model.generate(prompt, 6, temperature=0, task=number, use_cache=use_cache)
            assert np.array_equal(found, greedy(model, prompt, 6, number))
    assert model.generate("bcd", 4, task=1, seed=1)[:3] == "bcd"
    later = model.generate(prompt, 6, temperature=0, task=1)
    assert np.array_equal(model.generate(prompt, 6, temperature=0, task="later"), later)
    for wrong in (-1, "sooner"):
        said = rf"task is a name \(earlier, later\) or a number from 0 on; got {wrong!r}"
        with pytest.raises(ValueError, match=said):
            model.generate(prompt, 2, task=wrong)


def named(model: Any, task: Task) -> dict[str, Any]:
    shape = model_shape(build(BY_TASK), task.model, 256)
    own = {
        "embedding": model.embedding.embeddings, "positions": model.positions.embeddings,
        "norm_scale": model.norm.gamma, "norm_shift": model.norm.beta,
        **{f"blocks/0/{weight.name}": weight for weight in model.blocks[0].weights},
    }  # fmt: skip
    return {name: own[name] for name in shape.names}


def greedy(model: Any, prompt: np.ndarray, count: int, number: int) -> np.ndarray:
    for _ in range(count):
        best = np.asarray(model(prompt + SPAN * number))[:, -1].argmax(-1)
        prompt = np.concatenate([prompt, best[:, None]], axis=1)
    return prompt


JAX = """
import json, sys
from pathlib import Path
from tests.workers.test_tasks import BY_TASK, small
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec
from workers.training.evaluate import evaluate
task = small(DataSpec.model_validate_json(sys.argv[1]), backend="jax")
print(json.dumps(dict(evaluate(BY_TASK, task, Budget("steps", 5), 1, True).metrics)))
"""


@pytest.mark.slow
def test_jax_routes_by_tasks_too(data: DataSpec, folder: Path) -> None:
    pytest.importorskip("jax")
    run = subprocess.run(
        [sys.executable, "-c", JAX, data.model_dump_json()],
        capture_output=True, text=True, check=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    found = by_task(json.loads(run.stdout.splitlines()[-1]))
    own = by_task(evaluate(BY_TASK, small(data), Budget("steps", 5), 1, True).metrics)
    assert found == pytest.approx(own, rel=2e-3) and len(found) == 4
