"""Configs: what is accepted, and how each mistake is reported."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from search.config import examples
from search.config.file import load
from search.config.schema import BudgetSpec, CampaignConfig
from search.errors import ConfigError, UsageError

GOOD = """\
seed: 3
task:
  model: {d_model: 32, layers: 1}
search:
  seeds: [transformer]
  population: 8
  tournament: 3
  candidates: 10
  budget: {unit: steps, base: 20, hurdles: 2}
"""


def write(folder: Path, text: str, name: str = "campaign.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return str(caught.value)


def test_a_good_config_keeps_what_it_says(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    assert config.seed == 3
    assert config.task.model.d_model == 32
    assert config.search.seeds == ("transformer",)
    assert config.search.budget.hurdles_at == (20, 60)
    assert config.search.budget.full == 140


def test_a_config_survives_storage(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    assert CampaignConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("name", examples.names())
def test_example_configs_are_valid(name: str, tmp_path: Path) -> None:
    load(write(tmp_path, examples.text(name)))


def test_there_are_examples() -> None:
    assert {"quickstart", "positive_control"} <= set(examples.names())


def specs(model: type[BaseModel]) -> set[type[BaseModel]]:
    below = [info.annotation for info in model.model_fields.values()]
    found = {kind for kind in below if isinstance(kind, type) and issubclass(kind, BaseModel)}
    return {model}.union(*(specs(kind) for kind in found))


@pytest.mark.parametrize("model", sorted(specs(CampaignConfig), key=lambda kind: kind.__name__))
def test_every_part_is_strict_and_frozen(model: type[BaseModel]) -> None:
    settings = model.model_config
    assert (settings["strict"], settings["frozen"], settings["extra"]) == (True, True, "forbid")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seed: 3", "sed: 3", ["campaign.yaml:1", "'sed'", "did you mean 'seed'?", "workers"]),
        ("population: 8", "population: eight", ["campaign.yaml:6: search.population", '"eight"']),
        ("population: 8", "population: 8.5", ["campaign.yaml:6: search.population", "8.5"]),
        ("population: 8", "population: true", ["campaign.yaml:6: search.population", "true"]),
        ("population: 8", "population: 0", ["search.population", "greater than or equal to 1"]),
        ("d_model: 32", "d_model: 33", ["campaign.yaml:3: task.model.d_model", "multiple of 8"]),
        ("d_model: 32", "d_model: 1_0_0_0x", ["campaign.yaml:3: task.model.d_model"]),
        ("unit: steps", "unit: step", ["did you mean 'steps'?", "seconds, steps, tokens, flops"]),
        ("base: 20", "base: 20.5", ["search.budget", "whole number of steps"]),
        ("base: 20", "base: 1e999", ["search.budget.base", "not a number"]),
        ("base: 20", "base: .inf", ["search.budget.base", '".inf"']),
        ("  candidates: 10\n", "", ["campaign.yaml:4: search.candidates: missing"]),
        ("tournament: 3", "tournament: 30", ["search:", "tournament 30", "population 8"]),
        ("seed: 3", "seed: 3\nseed: 4", ["campaign.yaml:2: seed: written twice", ":1"]),
        ("seed: 3", "seed: !!python/object:os.system 3", ["campaign.yaml:1: seed", "tag"]),
        ("seed: 3", "seed: &a [*a]", ["campaign.yaml:1", "contains itself"]),
        ("[transformer]", "[transfomer]", ["search.seeds[0]", "did you mean 'transformer'?"]),
        ("[transformer]", "transformer", ["search.seeds", "list", '"transformer"']),
        ("[transformer]", "[]", ["campaign.yaml:5: search.seeds", "at least 1"]),
        ("[transformer]", "[other.dna]", ["campaign.yaml:5: search.seeds[0]", "other.dna"]),
        ("search:", "workers: 3\nsearch:", ["campaign.yaml:4: workers", "mapping of count"]),
        ("search:", "name: a b\nsearch:", ["campaign.yaml:4: name", '"a b"']),
    ],
)
def test_a_mistake_is_named_with_place_and_remedy(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    assert old in GOOD
    message = problems(write(tmp_path, GOOD.replace(old, new, 1)))
    assert "1 problem\n" in message
    for part in expected:
        assert part in message


def test_all_mistakes_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("seed: 3", "sed: 3").replace("population: 8", "population: x")
    message = problems(write(tmp_path, text.replace("[transformer]", "[nobody]")), "task.foo=1")
    assert "4 problems" in message
    places = [line.strip().split(": ")[0] for line in message.splitlines()[1:]]
    assert [place.rpartition(":")[2] for place in places[:3]] == ["1", "5", "6"]
    assert places[3] == "--set task.foo=1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1,\n", "not YAML"),
        ("a: 1\n b: 2\n", "campaign.yaml:2: not YAML"),
        ("- 1\n- 2\n", "mapping of keys"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: \x00", "not YAML"),
    ],
)
def test_what_is_no_config_at_all(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load(write(tmp_path, text))


def test_an_empty_file_lacks_search(tmp_path: Path) -> None:
    assert "search: missing" in problems(write(tmp_path, ""))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="directory"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(UsageError, match="UTF-8"):
        load(tmp_path / "latin.yaml")


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = GOOD + "name: on\n"
    text = text.replace(
        "task:", "task:\n  training: {jit: off}\n  optimizer: {learning_rate: 1e-3}"
    )
    config = load(write(tmp_path, text))
    assert config.name == "on"
    assert config.task.training.jit == "off"
    assert config.task.optimizer.learning_rate == 0.001


def test_plain_data_reads_as_safe_load_does(tmp_path: Path) -> None:
    for name in examples.names():
        path = write(tmp_path, examples.text(name))
        plain = yaml.safe_load(path.read_text())
        config = load(path).model_dump(mode="json")
        assert config["search"]["candidates"] == plain["search"]["candidates"]
        left_out = {"other": "transformer", "positions": "learned", "share_layers": False}
        assert config["task"]["model"] == {**left_out, **plain["task"]["model"]}


def test_set_overrides_and_is_checked_the_same_way(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    config = load(
        path,
        ["search.candidates=50", "task.optimizer.learning_rate=3e-3", "search.mutations={swap: 2}",
         "search.seeds=[primer, transformer]", "search.limits.flops_max=null", "name=other"],
    )  # fmt: skip
    assert config.search.candidates == 50
    assert config.task.optimizer.learning_rate == 0.003
    assert config.search.mutations == {"swap": 2.0}
    assert config.search.seeds == ("primer", "transformer")
    assert config.search.limits.flops_max is None
    assert config.name == "other"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("search.candidats=5", "did you mean 'candidates'?"),
        ("search.candidates=many", 'found "many"'),
        ("search.candidates", "write --set key=value"),
        ("=5", "write --set key=value"),
        ("seed.x=5", "seed is not a mapping"),
        ("search.seeds=[a", "not YAML"),
        ("search.budget.base=", "found null"),
    ],
)
def test_a_wrong_set_names_itself(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(write(tmp_path, GOOD), [override])
    assert f"--set {override}" in str(caught.value)
    assert expected in str(caught.value)


def test_paths_in_a_file_count_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from primitives.programs.seeds import load_seed, seed_text
    from search.config.programfile import load_program, title_of

    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "block.dna").write_text(seed_text("transformer"))
    (folder / "prose.txt").write_text("words")
    text = GOOD.replace("[transformer]", "[block.dna]")
    text = text.replace("task:", "task:\n  data: {source: text, files: ['*.txt']}")
    monkeypatch.chdir(tmp_path)
    config = load(write(folder, text).relative_to(tmp_path))
    assert [title_of(name) for name in config.search.seeds] == ["block.dna"]
    assert config.task.data.files == (str(folder / "*.txt"),)
    overridden = load(folder / "campaign.yaml", ["search.seeds=[experiment/block.dna]"])
    assert overridden.search.seeds == config.search.seeds
    (folder / "block.dna").unlink()  # a campaign goes on without the file
    _, dna = load_program(config.search.seeds[0], 64)
    assert dna == load_seed("transformer", 64)


def test_data_files_must_exist(tmp_path: Path) -> None:
    text = GOOD.replace("task:", "task:\n  data: {source: text, files: ['*.txt']}")
    assert "campaign.yaml:3: task.data.files: data.files: no file matches" in problems(
        write(tmp_path, text)
    )
    text = GOOD.replace("task:", "task:\n  data: {source: text}")
    assert "campaign.yaml:3: task.data.files: data.files is empty" in problems(
        write(tmp_path, text)
    )


def test_a_missing_extra_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.config.parts.find_spec", lambda name: None)
    text = GOOD.replace("task:", "task:\n  data: {tokenizer: bpe}")
    assert "pip install 'primevo[bpe]'" in problems(write(tmp_path, text))


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("dims d0=8\nconstants c0=0.0\n\nmain(x, y):\n  z = ADDD(x, y)\n", "block.dna:5"),
        ("dims d0=8\nconstants c0=0.0\n\nmain(x, y):\n  z = T-MAT MUL(x, y)\n", "main"),
    ],
)
def test_a_seed_file_that_does_not_parse_or_type_check(
    tmp_path: Path, program: str, expected: str
) -> None:
    (tmp_path / "block.dna").write_text(program)
    message = problems(write(tmp_path, GOOD.replace("[transformer]", "[block.dna]")))
    assert "campaign.yaml:5: search.seeds[0]: " in message
    assert expected in message


@pytest.mark.parametrize(
    ("seed", "every", "layers", "expected"),
    [
        ("switch", 4, 3, ["campaign.yaml:6: search.every: no block would run the seed program",
                          "'switch': every is 4, and task.model.layers is 3",
                          "task.model.layers to 4 or more, or every to 2"]),
        ("switch", 2, 1, ["campaign.yaml:6: search.every: ", "or every to 1"]),
        ("mixture_of_depths", 1, 1, ["campaign.yaml:5: search.seeds[0]: ",
                                     "'mixture_of_depths' says every 2"]),
    ],
)  # fmt: skip
def test_a_seed_program_that_no_block_would_run(
    tmp_path: Path, seed: str, every: int, layers: int, expected: list[str]
) -> None:
    text = GOOD.replace("[transformer]", f"[{seed}]\n  every: {every}")
    message = problems(write(tmp_path, text.replace("layers: 1", f"layers: {layers}")))
    assert "1 problem\n" in message
    for part in expected:
        assert part in message
    load(write(tmp_path, text.replace("layers: 1", "layers: 4")))


def test_every_is_of_no_account_to_dense_programs(tmp_path: Path) -> None:
    load(write(tmp_path, GOOD.replace("  population: 8", "  every: 4\n  population: 8")))
    load(write(tmp_path, GOOD.replace("[transformer]", "[switch]\n  every: middle")))


def test_budget_bands_double() -> None:
    budget = BudgetSpec(unit="seconds", base=1.5, hurdles=3)
    assert budget.hurdles_at == (1.5, 4.5, 10.5)
    assert budget.full == 22.5
    assert BudgetSpec(unit="steps", base=100).hurdles_at == ()


def usage(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load(path)
    return str(caught.value)


class TestFilesThatExpand:
    """Aliases, which let a short file stand for a long one."""

    @pytest.mark.parametrize("kind", ["lists", "mappings"])
    def test_a_billion_values_are_refused_at_once(self, tmp_path: Path, kind: str) -> None:
        item = "[{}]" if kind == "lists" else "{{{}}}"
        lines = ["a0: &a0 1"]
        for level in range(1, 12):
            parts = (f"k{i}: *a{level - 1}" if kind == "mappings" else f"*a{level - 1}"
                     for i in range(9))  # fmt: skip
            lines.append(f"a{level}: &a{level} {item.format(', '.join(parts))}")
        start = time.monotonic()
        assert "more than 100,000 values" in usage(write(tmp_path, "\n".join(lines)))
        assert time.monotonic() - start < 3

    def test_a_chain_of_aliases_is_refused(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 1", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 3000))]
        assert "nested deeper than 50 levels" in usage(write(tmp_path, "\n".join(lines)))

    def test_an_alias_that_is_used_twice_is_fine(self, tmp_path: Path) -> None:
        text = GOOD.replace("population: 8", "population: &p 8")
        text = text.replace("tournament: 3", "tournament: *p")
        assert load(write(tmp_path, text)).search.tournament == 8


def test_a_seed_program_that_the_objective_rules_out_is_told_with_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("[transformer]", "[transformer, expert_choice]")
    told = problems(write(tmp_path, text))
    assert "campaign.yaml:5: search.seeds[1]: expert_choice" in told
    assert "reads the future" in told and "objective is next_token" in told
    masked = text.replace("task:\n", "task:\n  training: {objective: masked}\n")
    assert load(write(tmp_path, masked)).search.seeds == ("transformer", "expert_choice")


@pytest.mark.parametrize("name", ["..", ".hidden", "-x", "a/b", "", "é", "a" * 101, "a\u0000b"])
def test_a_name_that_is_no_folders_name_is_refused(tmp_path: Path, name: str) -> None:
    text = f"name: {json.dumps(name)}\n{GOOD}"
    assert "letter or digit" in problems(write(tmp_path, text))
    assert load(write(tmp_path, f"name: run-1.b_{'c' * 60}\n{GOOD}")).name
