"""Campaigns of another database, and campaigns that start from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import insert

import primevo as face
from primitives.language.text import parse
from search.campaign import queries
from search.campaign.seeding import best, program_text
from search.config.file import task_of
from search.config.plugins import stored_config
from search.storage.models import Pruning, StudyRun
from search.storage.store import Store
from tests.cli.command import CONFIG, data, primevo, refusal
from tests.cli.instant import InstantPool
from tests.search.recorded import PRUNING, STUDY_RUN, connected


@pytest.fixture
def other(finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with the finished campaign `small`; the current folder has none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setattr("search.cli.running.Pool", InstantPool)
    (tmp_path / "other").mkdir()
    shutil.copy(finished[0] / "primevo.db", tmp_path / "other" / "primevo.db")
    return tmp_path / "other" / "primevo.db"


def config(tmp_path: Path, *seeds: str) -> Path:
    file = tmp_path / "warm.yaml"
    file.write_text(CONFIG.replace("search:", f"search:\n  seeds: [{', '.join(seeds)}]"))
    return file


class TestImport:
    def test_a_campaign_is_here_as_it_was_there(self, other: Path) -> None:
        printed = primevo("import", other).stdout
        assert "copied campaign 'small': 30 candidates" in printed
        there = f"sqlite:///{other}"
        assert data("top", "small") == data("top", "small", "--storage", there)
        assert data("status", "small") == data("status", "small", "--storage", there)
        assert primevo("db", "check").stdout.startswith("sound")

    def test_what_arrives_and_what_stays_is_said(self, other: Path) -> None:
        """Prunings and runs of studies go with everything, not with one campaign of it."""
        with connected(f"sqlite:///{other}") as connection:
            connection.execute(insert(Pruning), PRUNING | {"campaign_id": 1})
            outside = {"campaign_id": None, "candidate_id": None, "key": "o" * 64}
            connection.execute(insert(Pruning), PRUNING | outside)
            connection.execute(insert(StudyRun), STUDY_RUN | {"key": "s"})
        alone = primevo("import", other, "--campaign", "small")
        assert "copied 1 prunings\n" in alone.stdout and "studies" not in alone.stdout
        left = "left 1 prunings of other programs and 1 runs of studies, of no campaign"
        assert left in alone.stderr
        primevo("delete", "small", "--yes")
        whole = primevo("import", other)
        assert "copied 2 prunings\ncopied 1 runs of studies\n" in whole.stdout
        assert "left" not in whole.stderr
        assert [row["program"] for row in data("prunings", "list")] == [PRUNING["program"]] * 2
        assert len(data("studies", "list")) == 1

    def test_a_name_that_is_taken_can_be_another_one(self, other: Path) -> None:
        primevo("import", other)
        told = refusal(2, "import", other)
        assert "has a campaign 'small' already, and nothing was copied" in told
        assert "--as NAME" in told and len(told.splitlines()) == 1
        primevo("import", other, "--as", "again")
        assert [line["name"] for line in data("list")] == ["small", "again"]
        assert data("top", "again") == data("top", "small")
        assert "finished" in primevo("resume", "again").stderr

    def test_one_name_is_for_one_campaign(self, other: Path) -> None:
        there = f"sqlite:///{other}"
        primevo("import", other, "--as", "second", "--storage", there)
        told = refusal(2, "import", other, "--as", "mine")
        assert "--as mine is for one campaign; choose it with --campaign NAME" in told
        assert "small, second" in told
        assert data("list", "--storage", there)[-1]["name"] == "second"
        primevo("import", there, "--campaign", "second", "--as", "mine")
        assert [line["name"] for line in data("list")] == ["mine"]

    @pytest.mark.parametrize("name", ["..", "a/b", "", "x" * 200])
    def test_a_name_is_one_for_a_campaign(self, other: Path, name: str) -> None:
        assert "cannot name a campaign" in refusal(2, "import", other, "--as", name)
        assert not Path("primevo.db").exists()

    def test_what_is_not_there_is_told(self, other: Path) -> None:
        assert "none.db: no such file" in refusal(3, "import", "none.db")
        assert "no campaign 'smal'; did you mean 'small'" in refusal(
            3, "import", other, "--campaign", "smal"
        )


class TestWarmStart:
    def test_a_campaign_starts_from_anothers_best(self, other: Path, tmp_path: Path) -> None:
        primevo("import", other)
        with Store.open("sqlite:///primevo.db") as store:
            chosen = best(store, "small")
            final = min(
                (row for row in queries.summary(store, "small").final if not row.is_seed),
                key=lambda row: sum(row.val_losses) / len(row.val_losses),
            )
            expected = parse(queries.program(store, "small", chosen))
        assert chosen == final.id
        primevo("launch", config(tmp_path, "transformer", "campaign:small"))
        with Store.open("sqlite:///primevo.db") as store:
            assert parse(queries.program(store, "warm", 2)) == expected
            assert queries.candidate(store, "warm", 2)["mutation"] == "seed"
            stored = stored_config(store.campaign("warm").config, "warm").search.seeds
        assert stored[1].startswith(f"# candidate {chosen} of campaign small\n")

    def test_it_depends_on_nothing_that_may_go(self, other: Path, tmp_path: Path) -> None:
        primevo("import", other)
        primevo("launch", config(tmp_path, "campaign:small/7"))
        primevo("delete", "small", "--yes")
        primevo("replay", "warm")

    def test_a_candidate_may_be_in_another_database(self, other: Path, tmp_path: Path) -> None:
        """That of --storage, of PRIMEVO_STORAGE, or of the config."""
        file = config(tmp_path, "campaign:small/7")
        file.write_text(file.read_text() + f"storage: sqlite:///{other}\n")
        assert "candidate 7 of campaign small" in primevo("validate", file).stdout
        primevo("launch", file)
        assert [line["name"] for line in data("list", "--storage", f"sqlite:///{other}")] == [
            "small", "warm",
        ]  # fmt: skip

    def test_from_python(self, other: Path) -> None:
        settings = {
            "candidates": 4,
            "seeds": ["campaign:small/7"],
            "budget": {"unit": "steps", "base": 9},
        }
        checked = face.Campaign({"search": settings}, database=other, name="warm").config
        [text] = checked.search.seeds
        assert text == program_text(f"sqlite:///{other}", "campaign:small/7")

    @pytest.mark.parametrize(
        ("seed", "says"),
        [
            ("campaign:none", "no campaign 'none'"),
            ("campaign:small/999", "campaign 'small' has no candidate 999; it has 1 to 30"),
            ("campaign:small/x", "names no candidate; write campaign:NAME/ID"),
            ("'campaign:'", "names no candidate"),
        ],
    )
    def test_what_is_not_there_is_told_with_its_place(
        self, other: Path, tmp_path: Path, seed: str, says: str
    ) -> None:
        primevo("import", other)
        told = refusal(2, "launch", config(tmp_path, "transformer", seed))
        assert "search.seeds[1]" in told and says in told
        assert [line["name"] for line in data("list")] == ["small"]

    def test_one_program_twice_is_told_by_its_name(self, other: Path, tmp_path: Path) -> None:
        primevo("import", other)
        told = refusal(2, "launch", config(tmp_path, "campaign:small/1", "transformer"))
        assert "search.seeds: transformer and candidate 1 of campaign small are one program" in told

    def test_verbs_that_need_no_seed_programs_ask_no_database(
        self, other: Path, tmp_path: Path
    ) -> None:
        file = config(tmp_path, "campaign:small/7")
        assert task_of(file).model.d_model == 32
