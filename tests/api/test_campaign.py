"""Campaigns from Python. Workers are an instant evaluator."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import primevo
from primevo import Campaign, PrimevoError
from primitives.language.dna import DNA
from search.campaign.progress import Progress
from search.errors import ConfigError, NotFoundError, UsageError
from search.storage.events import Heartbeat
from tests.cli.command import data
from tests.cli.command import primevo as primevo_command
from tests.search.instant import outcome_of
from tests.search.recorded import candidates, evaluations
from workers.export import export
from workers.spec.outcome import Job

WORKERS = ("caller", "instant/1")

pytestmark = pytest.mark.usefixtures("here")

CONFIG_DATA: dict[str, Any] = {
    "task": {"model": {"d_model": 32, "layers": 1}},
    "search": {
        "population": 8,
        "tournament": 3,
        "candidates": 30,
        "budget": {"unit": "steps", "base": 20, "hurdles": 1},
        "final": {"top": 2, "seeds": 3},
    },
}


@pytest.fixture
def finished() -> Iterator[Campaign]:
    with Campaign("small.yaml").run(progress=False) as campaign:
        yield campaign


def answer(campaign: Campaign, count: int = 1) -> None:
    """Evaluates to the end what is asked for, as the instant workers do."""
    while asked := campaign.ask(count):
        for each in asked:
            dna = each.program.genome
            job = Job(each.id, dna, each.budget, each.seed, test=each.final)
            campaign.tell(each, outcome_of(job))


class TestRun:
    def test_the_command_line_sees_the_same_campaign(self, finished: Campaign) -> None:
        assert finished.status().phase == "done"
        assert [row["id"] for row in finished.top(5)] == [
            row["id"] for row in data("top", "small", "-n", "5")
        ]
        told = data("launch", "small.yaml", "--name", "other")
        best = finished.best
        assert best is not None and best.id == told["chosen"]
        assert (finished.status().verdict, finished.status().finding) == (
            told["verdict"],
            told["finding"],
        )

    def test_progress_may_be_a_function(self) -> None:
        seen: list[tuple[Progress, Heartbeat]] = []
        Campaign("small.yaml").run(progress=lambda *each: seen.append(each))
        assert seen[-1][0].phase == "done"

    def test_it_runs_in_a_thread(self) -> None:
        """Only the main thread may handle signals."""
        seen: list[str] = []

        def work() -> None:
            with Campaign("small.yaml").run() as campaign:
                seen.append(campaign.status().phase)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)
        assert seen == ["done"]

    def test_a_campaign_that_began_is_resumed_not_run(self, finished: Campaign) -> None:
        with pytest.raises(UsageError, match=r"'small' has begun; go on with it by: resume\(\)"):
            Campaign("small.yaml").run()
        assert Campaign("small.yaml").resume().status().phase == "done"

    def test_another_config_under_the_same_name_is_refused(self, finished: Campaign) -> None:
        other = {**CONFIG_DATA, "seed": 5}
        with pytest.raises(UsageError, match=r"differs in seed\); .*open_campaign\('small'\)"):
            Campaign(other, name="small")

    def test_it_is_opened_by_name(self, finished: Campaign) -> None:
        opened = primevo.open_campaign("small")
        assert opened.config == finished.config and len(opened.top(3)) == 3
        with pytest.raises(NotFoundError, match="did you mean 'small'"):
            primevo.open_campaign("smal")


class TestConfig:
    def test_data_and_file_are_one_config(self) -> None:
        from_data, from_file = primevo.load_config(CONFIG_DATA), primevo.load_config("small.yaml")
        assert from_data == from_file == primevo.load_config(from_data)

    def test_what_is_wrong_in_data_is_listed_by_key(self) -> None:
        wrong = {"search": {"candidates": 0, "budget": {"unit": "step", "base": 1}, "popul": 3}}
        with pytest.raises(ConfigError) as caught:
            Campaign(wrong, name="x")
        text = str(caught.value)
        for part in ("search.candidates", "search.budget.unit", "'steps'", "search.popul"):
            assert part in text
        with pytest.raises(UsageError, match="not JSON serializable"):
            Campaign({"search": object()}, name="x")

    def test_data_needs_a_name(self) -> None:
        with pytest.raises(UsageError, match=r"needs a name: Campaign\(config, name=\)"):
            Campaign(CONFIG_DATA)

    def test_looking_makes_no_database(self, here: Path) -> None:
        campaign = Campaign(CONFIG_DATA, name="x")
        with pytest.raises(NotFoundError, match="'x' has not begun"):
            campaign.top()
        assert "not begun" in repr(campaign) and "not begun" in campaign._repr_html_()
        assert [path.name for path in here.iterdir()] == ["small.yaml"]

    def test_a_database_is_a_path_or_a_url(self, here: Path) -> None:
        Campaign(CONFIG_DATA, here / "a.db", name="x").ask()
        assert len(primevo.open_campaign("x", f"sqlite:///{here}/a.db").top()) == 0


@pytest.mark.parametrize("name", ["../x", "a b", ".", "x\n", "x" * 101])
def test_what_cannot_name_a_folder_names_no_campaign(here: Path, name: str) -> None:
    with (
        pytest.raises(UsageError, match=r"cannot name a campaign .*; give another one with name="),
        Campaign(CONFIG_DATA, here / "a.db", name=name) as campaign,
    ):
        campaign.ask()


def test_weights_of_another_campaign_of_its_name_are_not_taken_for_its_own(here: Path) -> None:
    """Each database has its campaigns, and the folder of weights is one."""
    kept = here / "primevo-weights" / "x" / "3.npz"
    kept.parent.mkdir(parents=True)
    kept.touch()
    for begin in (Campaign.run, Campaign.ask):
        with (
            pytest.raises(UsageError, match="holds weights of another campaign 'x'"),
            Campaign(CONFIG_DATA, here / "a.db", name="x") as campaign,
        ):
            begin(campaign)
    kept.unlink()
    with Campaign(CONFIG_DATA, here / "a.db", name="x") as campaign:
        assert len(campaign.ask()) == 1


class TestAskAndTell:
    def test_it_equals_run(self, here: Path) -> None:
        with Campaign("small.yaml", "run.db") as campaign:
            campaign.run(progress=False)
        with Campaign("small.yaml", "asked.db") as campaign:
            answer(campaign)
            assert campaign.status().phase == "done" and campaign.ask() == []

        def recorded(path: str) -> list[object]:
            """All rows but for who evaluated."""
            url = f"sqlite:///{here}/{path}"
            told = [[each for each in row if each not in WORKERS] for row in evaluations(url)]
            return [*candidates(url), *told]

        assert recorded("asked.db") == recorded("run.db")

    def test_numbers_are_losses(self) -> None:
        with Campaign(CONFIG_DATA, name="x") as campaign:
            while asked := campaign.ask(4):
                for each in asked:
                    loss = float("nan") if each.id == 3 else 4.0 - len(each.program.dna.subroutines)
                    campaign.tell(each, loss + 0.01 * each.id)
            assert campaign.candidate(3).record["outcome"] == "diverged"
            assert campaign.candidate(3).record["reason"] == "the evaluator gave nan"
            best = campaign.best
            assert best is not None and best.id != 1
            assert [row["runs"] for row in campaign.status().final] == [3, 3, 3]
            with pytest.raises(UsageError, match="was not asked for here; ask first"):
                campaign.tell(each, 1.0)

    def test_what_was_not_told_is_asked_again_after_close(self) -> None:
        campaign = Campaign(CONFIG_DATA, name="x")
        (first,) = campaign.ask(3)
        campaign.tell(first, 3.0)
        before = campaign.ask(3)
        campaign.close()
        after = campaign.ask(3)
        assert [(a.id, a.seed, a.program.hash, a.budget) for a in after] == [
            (b.id, b.seed, b.program.hash, b.budget) for b in before
        ]

    def test_one_may_ask_what_another_ran(self) -> None:
        """A campaign that was asked for a while goes on with workers."""
        campaign = Campaign("small.yaml")
        for _ in range(5):
            (asked,) = campaign.ask()
            campaign.tell(asked, 3.0)
        assert campaign.resume(progress=False).status().phase == "done"

    def test_counts_below_one_are_refused(self) -> None:
        with pytest.raises(UsageError, match="count is 0"):
            Campaign(CONFIG_DATA, name="x").ask(0)


class TestReading:
    def test_to_pandas_has_every_candidate(self, finished: Campaign) -> None:
        frame = finished.to_pandas()
        assert len(frame) == 30
        best = finished.top(1)[0]
        assert (
            frame.set_index("id").loc[best["id"], "fitness"]
            == best["fitness"]
            == min(frame.fitness.dropna())
        )
        assert primevo.load_program(frame.program[0], 32).hash == frame.hash[0]
        assert list(finished.top(3).to_pandas().id) == [row["id"] for row in finished.top(3)]

    def test_without_pandas_it_says_what_to_install(
        self, finished: Campaign, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(PrimevoError, match=r"pip install 'primevo\[pandas\]'"):
            finished.to_pandas()

    def test_curves_are_figures_and_text(self, finished: Campaign) -> None:
        best = finished.best
        assert best is not None
        curves = finished.curve(best.id)
        drawn = curves._repr_mimebundle_()
        figure = drawn["application/vnd.plotly.v1+json"]
        assert {trace["name"] for trace in figure["data"]} == {
            "seed program", "seed program, final runs",
            f"candidate {best.id}", f"candidate {best.id}, final runs",
        }  # fmt: skip
        assert "validation loss" in drawn["text/plain"]
        assert len(curves.to_pandas()) == sum(len(each.points) for each in curves.curves)
        with pytest.raises(NotFoundError, match="no candidate 99"):
            finished.curve(99)

    def test_the_report_is_written(self, finished: Campaign, here: Path) -> None:
        path = finished.report(here / "page.html")
        assert "<html" in path.read_text()
        with pytest.raises(PrimevoError, match="cannot be written"):
            finished.report(here / "nowhere" / "page.html")

    def test_reprs_escape_what_they_show(self, finished: Campaign) -> None:
        best = finished.best
        assert best is not None
        html = best._repr_html_()
        assert "<pre" in html and best.program.hash[:8] in html
        assert "<script>" not in primevo.Table([{"a": "<script>"}])._repr_html_()
        assert "verdict" in finished._repr_html_() and "<table>" in finished._repr_html_()
        assert repr(finished.top(2)).startswith("id")

    def test_lineage_ends_at_the_candidate(self, finished: Campaign) -> None:
        best = finished.best
        assert best is not None
        line = finished.lineage(best.id)
        assert line[-1]["id"] == best.id and line[0]["parent_id"] is None


class TestExport:
    @pytest.fixture
    def exported(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[DNA, Path, dict[str, Any]]]:
        """What exports were asked for; they write nothing."""
        asked: list[tuple[DNA, Path, dict[str, Any]]] = []

        def note(dna: DNA, to: Path, **arguments: Any) -> list[Path]:
            decides = ("task", "budget", "seed", "card", "weights")
            asked.append((dna, to, {name: arguments[name] for name in decides}))
            return [to / "card.json"]

        monkeypatch.setattr(export, "export_candidate", note)
        return asked

    def test_it_is_the_commands(
        self, finished: Campaign, exported: list[tuple[DNA, Path, dict[str, Any]]]
    ) -> None:
        best = finished.best
        assert best is not None
        assert finished.export("out") == [Path("out/card.json")]
        primevo_command("export", "small", best.id, "--to", "out")
        ours, theirs = exported
        assert ours == theirs
        card = ours[2]["card"]
        assert card["candidate"]["id"] == best.id and card["seed_program"] == 1
        shown = json.loads(primevo_command("show", "small", best.id, "-o", "json").stdout)
        assert card["changes"] == shown["changes"]
        status = finished.status()
        assert card["verdict"] == f"{status.verdict}: {status.finding}"

    def test_a_seed_program_has_nothing_to_be_compared_with(
        self, finished: Campaign, exported: list[tuple[DNA, Path, dict[str, Any]]]
    ) -> None:
        finished.export("out", 1)
        assert not {"verdict", "changes"} & exported[0][2]["card"].keys()

    def test_a_program_without_a_campaign(
        self, exported: list[tuple[DNA, Path, dict[str, Any]]]
    ) -> None:
        primevo.export("primer_ez", "out", "small.yaml")
        primevo_command(
            "export", "--seed-program", "primer_ez", "--config", "small.yaml", "--to", "out"
        )
        assert exported[0] == exported[1]

    def test_what_cannot_be_written_is_told(self, here: Path) -> None:
        (here / "taken").mkdir()
        (here / "taken" / "file").touch()
        with pytest.raises(PrimevoError, match="not an empty folder"):
            primevo.export("transformer", "taken", "small.yaml")
