"""An exported program: readable, alone on Keras, the same function as the one that was trained."""

from __future__ import annotations

import ast
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from primitives.graph.build import build
from primitives.language.dna import DNA
from primitives.language.jsonform import from_json
from primitives.language.text import parse
from primitives.lowering.layer import block_function
from primitives.programs.seeds import load_seed
from tests.reference.random_programs import DENSE_SEEDS, grown, size_of, walk
from workers.data.tokens import load_tokens
from workers.export import export as exporting
from workers.export.code import LINE
from workers.export.export import ExportError, export, export_candidate
from workers.export.source import names, plain
from workers.model.model import logits, model_layers
from workers.model.shape import initial_model, model_shape
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec, ModelSpec, OptimizerSpec, Task

ROOT = Path(__file__).parents[2]
SPEC = ModelSpec(d_model=16, layers=2, sequence_length=12)
CHECK = Path(__file__).with_name("check_export.py")


@dataclass(frozen=True)
class Exported:
    """A folder, and what its program computes here: tokens [3, 12] -> expected logits."""

    folder: Path
    dna: DNA
    tokens: np.ndarray
    expected: np.ndarray

    @property
    def source(self) -> str:
        (module,) = self.folder.glob("*_block.py")
        return module.read_text()


def weights_of(dna: DNA, spec: ModelSpec = SPEC, vocabulary: int = 256) -> dict[str, np.ndarray]:
    """Weights by name, every one of them random so that none can take another's place."""
    shape = model_shape(build(dna, bidirectional=True), spec, vocabulary)
    rng = np.random.default_rng(7)
    start = initial_model(shape, seed=3)
    values = [(w + 0.1 * rng.standard_normal(w.shape)).astype(np.float32) for w in start]
    return dict(zip(shape.names, values, strict=True))


def expected_logits(dna: DNA, weights: Mapping[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    layers = model_layers(build(dna), Task(model=SPEC))
    return np.asarray(logits(layers, list(weights.values()), tokens, False, None)[0])


def mutants(count: int) -> dict[str, DNA]:
    """Far descendants of seed programs and grown programs, with weights under nested branches."""
    rng = random.Random(11)
    found: dict[str, DNA] = {}
    while len(found) < count:
        *_, mutant = walk(rng.choice(DENSE_SEEDS), 30, rng)
        for dna in (mutant, grown(rng)):
            graph = build(dna)
            nested = any(len(node.context) > 1 for node in graph.nodes)
            if nested and size_of(graph) <= 4096 and len(found) < count and is_steady(dna):
                found[f"mutant-{len(found)}"] = dna
    return found


def is_steady(dna: DNA) -> bool:
    """Whether rounding errors stay small: two ways of computing a chaotic program would differ."""
    tokens = np.zeros((1, SPEC.sequence_length), "int32")
    weights = weights_of(dna)
    nearby = {name: value * np.float32(1 + 1e-5) for name, value in weights.items()}
    one, other = (expected_logits(dna, each, tokens) for each in (weights, nearby))
    return bool(np.abs(one - other).max() < 1e-3)


def exported(folder: Path, dna: DNA, task: Task) -> Exported:
    vocabulary = load_tokens(task.data).vocabulary
    weights = weights_of(dna, vocabulary=vocabulary)
    export(dna, folder, task=task, weights=weights, card={"program": folder.name})
    tokens = np.random.default_rng(0).integers(0, vocabulary, (3, SPEC.sequence_length), "int32")
    return Exported(folder, dna, tokens, expected_logits(dna, weights, tokens))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> list[Exported]:
    """Every dense seed program and some nested mutants."""
    root = tmp_path_factory.mktemp("exports")
    programs = {name: load_seed(name) for name in DENSE_SEEDS} | mutants(3)
    task = Task(model=SPEC, data=DataSpec(max_documents=20))
    return [exported(root / name, dna, task) for name, dna in programs.items()]


@pytest.fixture(scope="module")
def bpe_export(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    data = DataSpec(max_documents=20, tokenizer="bpe", vocabulary=300)
    folder = tmp_path_factory.mktemp("bpe") / "bpe"
    return exported(folder, load_seed("transformer"), Task(model=SPEC, data=data))


def load_module(source: str, name: str = "exported") -> ModuleType:
    module = ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
    return module


@pytest.mark.slow
def test_loads_trains_and_saves_where_primevo_is_not_installed(
    exports: list[Exported], bpe_export: Exported, tmp_path: Path
) -> None:
    every = [*exports, bpe_export]
    for made in every:
        np.savez(f"{made.folder}.npz", tokens=made.tokens, logits=made.expected)
    result = subprocess.run(
        [sys.executable, "-I", str(CHECK), *(str(made.folder) for made in every)],
        cwd=tmp_path, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    for made in every:
        assert f"{made.folder.name}: equal, trains, saves" in result.stdout
    assert result.stdout.endswith(f"{exports[0].folder.name}: runs\nbpe: runs\n")


def test_the_folder_holds_what_it_says(exports: list[Exported]) -> None:
    for made in exports:
        module = f"{names(made.folder.name).module}.py"
        files = {"README.md", "card.json", "example.py", "model.keras", "model.weights.h5", module}
        assert {path.name for path in made.folder.iterdir()} == files
        readme = (made.folder / "README.md").read_text()
        assert all(f"`{name}`" in readme for name in files - {"README.md"})


def test_the_module_imports_keras_alone(exports: list[Exported]) -> None:
    for made in exports:
        found = set()
        for node in ast.walk(ast.parse(made.source)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module)
        assert found == {"__future__", "typing", "keras"}


def test_generated_code_is_clean(exports: list[Exported]) -> None:
    rules = ["--isolated", "--no-cache", "--line-length", str(LINE), "--target-version", "py311"]
    for made in exports:
        for command in (["check", "--select", "E,F,I,B,UP,SIM,RUF,C4"], ["format", "--check"]):
            ruff = [sys.executable, "-m", "ruff", command[0], *rules, *command[1:], "."]
            result = subprocess.run(ruff, cwd=made.folder, capture_output=True, text=True)
            assert result.returncode == 0, result.stdout + result.stderr


def test_long_names_are_wrapped(tmp_path: Path) -> None:
    long = "a_state_with_a_name_as_long_as_anybody_writes"
    text = f"dims d0=8\nconstants c0=0.1\nmain(x, y):\n  {long} = CONV 3X1(x) dim=d0\n"
    dna = parse(f"{text}  {long}_2 = SHIFT({long})\n  out = MULTIPLY({long}, {long}_2)\n")
    weights = weights_of(dna)
    export(dna, tmp_path / "it", task=Task(model=SPEC), weights=weights, card={"program": "long"})
    source = (tmp_path / "it" / "long_block.py").read_text()
    code = [line for line in source.splitlines() if not line.startswith("#")]
    assert max(map(len, code)) <= LINE


def test_the_comment_is_the_program(exports: list[Exported]) -> None:
    for made in exports:
        comment = made.source.partition("# The program that this module was generated from")[2]
        text = "\n".join(line[2:] for line in comment.splitlines()[1:])
        assert build(parse(text)).hash == build(made.dna).hash


@pytest.mark.parametrize("d_model", [8, 24])
def test_the_block_serves_every_width(exports: list[Exported], d_model: int) -> None:
    x = np.random.default_rng(1).standard_normal((2, 5, d_model)).astype(np.float32)
    for made in exports:
        called = names(made.folder.name)
        layer = getattr(load_module(made.source), called.block)()
        layer.build(x.shape)
        weights = [np.asarray(variable) for variable in layer.weights]
        expected = np.asarray(block_function(build(made.dna), d_model)(x, weights))
        np.testing.assert_allclose(np.asarray(layer(x)), expected, rtol=1e-5, atol=1e-5)


def test_a_width_that_has_no_eighth_is_refused(exports: list[Exported]) -> None:
    layer = getattr(load_module(exports[0].source), names(exports[0].folder.name).block)()
    with pytest.raises(ValueError, match="multiple of 8"):
        layer.build((None, None, 12))


def test_fresh_weights_start_as_in_the_search(exports: list[Exported]) -> None:
    spec = ModelSpec(d_model=128, layers=1, sequence_length=64)
    for made in exports:
        if made.folder.name.startswith("mutant"):
            continue
        model = load_module(made.source).build_model(
            d_model=spec.d_model, layers=spec.layers, sequence_length=spec.sequence_length
        )
        shape = model_shape(build(made.dna), spec, 256)
        for name, ours, theirs in zip(
            shape.names, initial_model(shape, 0), variables(model), strict=True
        ):
            values = np.asarray(theirs)
            assert values.shape == ours.shape, name
            if ours.std() == 0 or is_causal(ours):
                np.testing.assert_allclose(values, ours)
            else:
                assert values.std() == pytest.approx(ours.std(), rel=0.1), name


def is_causal(values: np.ndarray) -> bool:
    return set(np.unique(values)) == {np.float32(0.5 / values.shape[-2]), np.float32(0.5)}


def variables(model: Any) -> list[Any]:
    """In the order of `workers.model.model`."""
    around = [model.embedding.embeddings, model.positions.embeddings, *model.norm.weights]
    return around + [variable for block in model.blocks for variable in block.weights]


def test_the_weights_file_fits_a_fresh_model(exports: list[Exported]) -> None:
    for made in exports[:2]:
        model = load_module(made.source).build_model()
        model.load_weights(made.folder / "model.weights.h5")
        np.testing.assert_allclose(
            np.asarray(model(made.tokens)), made.expected, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_trained_program_keeps_its_score(tiny_task: Task, tmp_path: Path, optimizer: str) -> None:
    task = tiny_task.model_copy(update={"optimizer": OptimizerSpec(name=optimizer, warmup_steps=5)})
    dna, record = load_seed("primer_ez"), {"id": 4, "val_loss": 2.5, "val_bpb": 3.6, "steps": 9}
    export_candidate(
        dna, tmp_path / "out", task=task, budget=Budget("steps", 20), seed=5,
        card={"program": "run-4", "candidate": record, "budget": {"unit": "steps"}},
    )  # fmt: skip
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert from_json(card["dna"]) == parse(card["text"]) == dna
    assert (card["hash"], card["candidate"]) == (build(dna).hash, record)
    assert Task.model_validate_json(json.dumps(card["task"])) == task
    run = card["weights"]
    assert (run["seed"], run["steps"], run["budget"]["amount"]) == (5, 20, 20)
    source = (tmp_path / "out" / "run_4_block.py").read_text()
    model = load_module(source).build_model()
    model.load_weights(tmp_path / "out" / "model.weights.h5")
    assert loss_on_validation(model, task) == pytest.approx(run["val_loss"], abs=1e-4)
    assert "2.5000 nats a token, 3.6000 bits a byte after 9 steps" in source
    told = " ".join(source.split())
    assert f"{run['test_bpb']:.4f} bits a byte; expected calibration error" in told
    assert " after 20 steps" in told
    assert model.count_params() == card["static_cost"]["parameters"]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_card_has_the_exported_models_own_score(
    tiny_task: Task, tmp_path: Path, precision: str
) -> None:
    """Recomputed from the saved model. A run in bfloat16 scored a little otherwise, and the card,
    the README and the module say so; nothing else does."""
    training = tiny_task.training.model_copy(update={"precision": precision})
    task = tiny_task.model_copy(update={"training": training})
    folder = tmp_path / "out"
    export_candidate(
        load_seed("transformer"), folder, task=task, budget=Budget("steps", 20), seed=5,
        card={"program": "it"},
    )  # fmt: skip
    card = json.loads((folder / "card.json").read_text())
    scores, run = card["exported"], card["weights"]
    for name in ("test_ece", "test_brier"):
        assert scores[name] == pytest.approx(run[name], abs=2e-3)
    assert (card["trained_in"], scores["precision"]) == (precision, "float32")
    source = (folder / "it_block.py").read_text()
    model = load_module(source).build_model()
    model.load_weights(folder / "model.weights.h5")
    tokens = load_tokens(task.data)
    for split, short in (("validation", "val"), ("test", "test")):
        loss = loss_on_split(model, task, split)
        bits = loss / np.log(2) / tokens.bytes_per_token[split]
        assert scores[f"{short}_loss"] == pytest.approx(loss, abs=1e-5)
        assert scores[f"{short}_bpb"] == pytest.approx(bits, abs=1e-5)
        differs = abs(scores[f"{short}_loss"] - run[f"{short}_loss"])
        assert differs < 1e-5 if precision == "float32" else 1e-5 < differs < 0.05
    for text in (source, (folder / "README.md").read_text()):
        said = " ".join(text.split())
        assert f"{scores['val_bpb']:.4f} bits a byte" in said
        assert f"computed in {scores['precision']}" in said
        assert ("differ from these by roundings" in said) == (precision != "float32")


def test_weights_of_an_unknown_precision_are_said_to_be(tmp_path: Path) -> None:
    dna = load_seed("transformer")
    weights = weights_of(dna)
    np.savez(tmp_path / "old.npz", **weights)
    np.savez(tmp_path / "new.npz", precision="mixed_bfloat16", **weights)
    for file, trained_in in (("old", "unknown"), ("new", "mixed_bfloat16")):
        export(
            dna, tmp_path / file, task=Task(model=SPEC), weights=tmp_path / f"{file}.npz",
            card={"program": "it"},
        )  # fmt: skip
        card = json.loads((tmp_path / file / "card.json").read_text())
        assert card["trained_in"] == trained_in
    assert "is not known" in (tmp_path / "old" / "README.md").read_text().replace("\n", " ")


def loss_on_validation(model: Any, task: Task) -> float:
    return loss_on_split(model, task, "validation")


def loss_on_split(model: Any, task: Task, split: str) -> float:
    import keras

    length, training = task.model.sequence_length, task.training
    split = getattr(load_tokens(task.data), split)
    windows = np.lib.stride_tricks.sliding_window_view(split, length + 1)
    count = training.eval_batches * training.batch_size
    chosen = windows[np.linspace(0, len(windows) - 1, count).astype(np.int64)].astype("int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return float(loss(chosen[:, 1:], model(chosen[:, :-1])))


def test_the_weights_of_a_file_are_not_trained_again(tmp_path: Path) -> None:
    dna = load_seed("transformer")
    weights = weights_of(dna)
    np.savez(tmp_path / "kept.npz", **weights)
    export_candidate(
        dna, tmp_path / "out", task=Task(model=SPEC), budget=Budget("steps", 10**9), seed=0,
        card={"program": "kept"}, weights=tmp_path / "kept.npz",
    )  # fmt: skip
    model = load_module((tmp_path / "out" / "kept_block.py").read_text()).build_model()
    model.load_weights(tmp_path / "out" / "model.weights.h5")
    for array, variable in zip(weights.values(), variables(model), strict=True):
        np.testing.assert_array_equal(array, np.asarray(variable))


def test_an_untrained_export_has_the_start_values_of_its_seed(
    tiny_task: Task, tmp_path: Path
) -> None:
    dna = load_seed("transformer")
    export_candidate(
        dna, tmp_path / "out", task=tiny_task, budget=Budget("steps", 10**9), seed=4,
        card={"program": "it"}, untrained=True,
    )  # fmt: skip
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["trained"], card["trained_in"], card.get("weights")) == (False, "untrained", None)
    readme = " ".join((tmp_path / "out" / "README.md").read_text().split())
    assert "the weights are start values: nothing was trained" in readme
    model = load_module((tmp_path / "out" / "it_block.py").read_text()).build_model()
    model.load_weights(tmp_path / "out" / "model.weights.h5")
    expected = initial_model(model_shape(build(dna), tiny_task.model, 256), seed=4)
    for array, variable in zip(expected, variables(model), strict=True):
        np.testing.assert_array_equal(array, np.asarray(variable))


def test_the_readme_begins_with_what_the_hub_reads(exports: list[Exported]) -> None:
    import yaml

    scored = 0
    for made in exports:
        _, metadata, _ = (made.folder / "README.md").read_text().split("---\n", 2)
        found = yaml.safe_load(metadata)
        assert found["library_name"] == "keras" and found["pipeline_tag"] == "text-generation"
        card = json.loads((made.folder / "card.json").read_text())
        score = card["exported"]["test_bpb"]
        if not math.isfinite(score):  # nobody is told a score that is none
            assert "model-index" not in found
            continue
        (result,) = found["model-index"][0]["results"]
        assert result["metrics"][0]["value"] == round(score, 4)
        scored += 1
    assert scored >= len(DENSE_SEEDS)


def test_a_bpe_goes_along(bpe_export: Exported) -> None:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(bpe_export.folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == bpe_export.expected.shape[-1]
    assert "`tokenizer.json`" in (bpe_export.folder / "README.md").read_text()


def test_what_is_there_is_never_touched(tmp_path: Path) -> None:
    dna = load_seed("transformer")
    full, file, empty = tmp_path / "full", tmp_path / "file", tmp_path / "empty"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    file.write_text("mine")
    for taken in (full, file):
        with pytest.raises(ExportError, match="not an empty folder; name another one"):
            export_candidate(
                dna, taken, task=Task(), budget=Budget("steps", 10**9), seed=0,
                card={"program": "it"},
            )  # fmt: skip
    assert (full / "mine.txt").read_text() == file.read_text() == "mine"
    empty.mkdir()
    weights = weights_of(dna)
    assert export(dna, empty, task=Task(model=SPEC), weights=weights, card={"program": "it"})


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "_model", fail)
    dna = load_seed("transformer")
    weights = weights_of(dna)
    with pytest.raises(ExportError, match="No space left on device"):
        export(dna, tmp_path / "it", task=Task(model=SPEC), weights=weights, card={"program": "it"})
    assert list(tmp_path.iterdir()) == []


def test_a_program_without_a_type_is_refused(tmp_path: Path) -> None:
    dna = parse("dims d0=8\nconstants c0=0.0\nmain(x, y):\n  out = RED SUM(x)\n")
    with pytest.raises(ExportError, match="does not type-check in this task: main"):
        export(dna, tmp_path / "it", task=Task(), weights={}, card={"program": "it"})


def test_weights_of_another_program_are_refused(tmp_path: Path) -> None:
    weights = weights_of(load_seed("primer"))
    with pytest.raises(ExportError, match="not the program's weights: 'blocks/"):
        export(
            load_seed("transformer"), tmp_path / "it", task=Task(model=SPEC), weights=weights,
            card={"program": "it"},
        )  # fmt: skip
    (tmp_path / "bad.npz").write_text("not an archive")
    with pytest.raises(ExportError, match="cannot read the weights"):
        export(
            load_seed("primer"), tmp_path / "it", task=Task(model=SPEC),
            weights=tmp_path / "bad.npz", card={"program": "it"},
        )  # fmt: skip


def test_a_run_that_diverges_has_no_weights_to_export(tiny_task: Task, tmp_path: Path) -> None:
    dna = parse("dims d0=8\nconstants c0=0.0\nmain(x, y):\n  none = RED SUM(x)\n"
                "  zero = C MUL(none) constant=c0\n  nan = DIVIDE(zero, zero)\n"
                "  out = ADD(x, nan)\n")  # fmt: skip
    with pytest.raises(ExportError, match="training ended as diverged"):
        export_candidate(
            dna, tmp_path / "it", task=tiny_task, budget=Budget("steps", 2), seed=0,
            card={"program": "it"},
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("title", "module", "block"),
    [
        ("quickstart-17", "quickstart_17_block", "Quickstart17Block"),
        ("transformer", "transformer_block", "TransformerBlock"),
        ("keras", "keras_block", "KerasBlock"),
        ("2024 Räume/2", "block_2024_r_ume_2", "Block2024RUme2"),
        ("", "block", "Block"),
        ("x" * 300, "x" * 60 + "_block", "X" + "x" * 59 + "Block"),
    ],
)
def test_names_of_module_and_layer(title: str, module: str, block: str) -> None:
    called = names(title)
    assert (called.module, called.block) == (module, block)
    assert module.isidentifier() and block.isidentifier()


def test_a_title_cannot_end_the_docstring(tmp_path: Path) -> None:
    assert plain('a"""\nimport os \\x\t|') == "a''' import os 'x '"
    dna = load_seed("transformer")
    card = {"program": 'a"""\nraise SystemExit #\\'}
    export(dna, tmp_path / "it", task=Task(model=SPEC), weights=weights_of(dna), card=card)
    (module,) = (tmp_path / "it").glob("*_block.py")
    assert isinstance(ast.parse(module.read_text()).body[0], ast.Expr)


def test_reading_the_module_costs_no_framework() -> None:
    code = "import sys, workers.export.export; frameworks = {'tensorflow', 'keras', 'ray'}\n"
    code += "print(frameworks & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file cut short, or with some of its bytes overwritten."""
    made = bytearray(content[: rng.choice((len(content), rng.randrange(len(content))))])
    for _ in range(rng.choice((1, 20, 500))):
        made[rng.randrange(len(made))] = rng.randrange(256)
    return bytes(made)


class Bomb:
    """It tells when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def test_damaged_weights_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, rng = tmp_path / "1.npz", random.Random(0)
    for save in (np.savez, np.savez_compressed):
        save(path, precision="float32", embedding=np.ones((64, 8), np.float32))
        sound = path.read_bytes()
        assert exporting._loaded(path)["embedding"].shape == (64, 8)
        for _ in range(150):
            path.write_bytes(damaged(sound, rng))
            try:
                loaded = exporting._loaded(path)
            except ExportError as error:
                assert str(path) in str(error) and "restore a copy" in str(error)
                assert len(str(error).splitlines()) == 1
            else:  # what no array's sum covers
                assert all(array.dtype.kind in "fU" for array in loaded.values())
    np.save(tmp_path / "1.npy", np.ones(3))
    for content in (b"", b"text", b"PK\3\4", b"\x80\x04.", (tmp_path / "1.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ExportError, match=r"1.npz: damaged \("):
            exporting._loaded(path)
    for array in (np.array([Bomb()], object), np.array(["x"]), np.ones(3, int)):
        np.savez(path, embedding=array)
        with pytest.raises(ExportError, match=r"1.npz: damaged \("):
            exporting._loaded(path)
    assert not (tmp_path / "unpickled").exists()
