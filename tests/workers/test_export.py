"""An exported program: readable, alone on Keras, the same function as the one that was trained."""

from __future__ import annotations

import ast
import json
import math
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from primitives.graph.build import build
from primitives.language.dna import DNA
from primitives.language.text import parse
from primitives.lowering.layer import block_function
from primitives.programs.seeds import load_seed
from tests.reference.random_programs import DENSE_SEEDS, grown, size_of, walk
from tests.workers.exports import (
    CHECK,
    SPEC,
    expected_logits,
    load_module,
    variables,
    weights_of,
)
from workers.data.tokens import load_tokens
from workers.export.code import LINE
from workers.export.export import export
from workers.export.source import names, plain
from workers.model.shape import initial_model, model_shape
from workers.spec.task import DataSpec, ModelSpec, Task

ROOT = Path(__file__).parents[2]


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


def test_the_weights_file_fits_a_fresh_model(exports: list[Exported]) -> None:
    for made in exports[:2]:
        model = load_module(made.source).build_model()
        model.load_weights(made.folder / "model.weights.h5")
        np.testing.assert_allclose(
            np.asarray(model(made.tokens)), made.expected, rtol=1e-5, atol=1e-5
        )


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
