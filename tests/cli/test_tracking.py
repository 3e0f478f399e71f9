"""Runs for TensorBoard and MLflow, read back by these tools' own readers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.report import mlflow as exporter
from search.report.runs import TrackedRun, tracked_runs
from search.report.tensorboard import FILE
from search.storage.store import Store
from tests.cli.command import primevo, refusal


@pytest.fixture
def folder(finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished campaign's database, in the current folder."""
    shutil.copy(finished[0] / "primevo.db", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs(hurdle: int = 0) -> dict[str, TrackedRun]:
    with Store.open("sqlite:///primevo.db", create=False) as store:
        return {run.name: run for run in tracked_runs(store, "small", hurdle)}


def read(folder: Path, name: str) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tb" / "small" / name))
    found.Reload()
    return found


def stamps(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.rglob(FILE)}


class TestRuns:
    def test_each_run_once(self, folder: Path) -> None:
        found = runs()
        assert len({run.key for run in found.values()}) == len(found) > 30
        finals = [name for name in found if "-final-" in name]
        assert len(finals) == 9 and "00001-final-3" in finals

    def test_a_hurdle_leaves_those_beyond_it(self, folder: Path) -> None:
        """And the final runs, which no hurdle stops."""
        every, beyond = runs(), runs(1)
        assert set(beyond) < set(every)
        searched = {name: run for name, run in every.items() if name.endswith("-search")}
        kept = {name for name, run in searched.items() if run.settings["hurdles_passed"]}
        assert {name for name in beyond if name.endswith("-search")} == kept and kept

    def test_a_hurdle_that_is_not_there(self, folder: Path) -> None:
        told = refusal(2, "tensorboard", "small", "--to", "tb", "--hurdle", 2)
        assert "--hurdle 2: campaign 'small' has 1; allowed: 0 to 1" in told


class TestTensorBoard:
    @pytest.mark.slow  # TensorBoard's reader imports TensorFlow
    def test_a_run_is_read_back(self, folder: Path) -> None:
        from tensorboard.plugins.hparams import metadata

        assert primevo("tensorboard", "small", "--to", "tb").stdout == "tb/small\n"
        own = runs()
        assert set(stamps(folder)) == set(own)
        for name in ("00001-search", "00001-final-2"):
            found, run = read(folder, name), own[name]
            curve = found.Scalars("val_loss")
            assert [event.step for event in curve] == [point.steps for point in run.points]
            losses = [point.val_loss for point in run.points]
            assert [event.value for event in curve] == pytest.approx(losses, rel=1e-6)
            for metric, value in run.scores.items():
                assert found.Scalars(metric)[-1].value == pytest.approx(value, rel=1e-6)
            content = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
            settings = metadata.parse_session_start_info_plugin_data(content).hparams
            assert settings["candidate"].number_value == 1
            assert settings["hash"].string_value == run.settings["hash"]
        assert "test_bpb" in found.Tags()["scalars"]

    def test_again_adds_what_is_new_and_mends_what_is_not_whole(self, folder: Path) -> None:
        primevo("tensorboard", "small", "--to", "tb", "--hurdle", 1)
        first = stamps(folder)
        told = primevo("tensorboard", "small", "--to", "tb").stderr
        assert f"{len(runs())} runs, {len(runs()) - len(first)} of them new" in told
        second = stamps(folder)
        assert {name: second[name] for name in first} == first
        broken = folder / "tb" / "small" / "00001-search" / FILE
        whole = broken.read_bytes()
        broken.write_bytes(whole[:100])
        assert "1 of them new" in primevo("tensorboard", "small", "--to", "tb").stderr
        assert broken.read_bytes() == whole
        assert not list(folder.rglob(".draft"))

    def test_a_folder_that_cannot_be(self, folder: Path) -> None:
        (folder / "file").write_text("")
        assert "--to file/small" in refusal(1, "tensorboard", "small", "--to", "file")


class TestMlflow:
    def client(self) -> Any:
        import mlflow

        return mlflow.MlflowClient(tracking_uri="sqlite:///mlflow.db")

    @pytest.mark.slow  # MLflow makes its database by some forty migrations
    def test_runs_are_read_back_and_added_once(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def export(*more: object) -> str:
            return primevo("mlflow", "small", "--uri", "sqlite:///mlflow.db", *more).stderr

        beyond, own = runs(1), runs()
        monkeypatch.setattr(exporter, "_add", failing_at(4, exporter._add))
        with pytest.raises(AssertionError, match="it broke"):
            export("--hurdle", 1)
        monkeypatch.undo()
        monkeypatch.chdir(folder)
        assert f"{len(beyond)} runs, {len(beyond) - 3} of them new" in export("--hurdle", 1)
        assert f"{len(own)} runs, {len(own) - len(beyond)} of them new" in export()
        assert f"{len(own)} runs, 0 of them new" in export()

        client = self.client()
        experiment = client.get_experiment_by_name("small").experiment_id
        found = {run.info.run_name: run for run in client.search_runs([experiment])}
        assert set(found) == set(own)
        assert {run.info.status for run in found.values()} <= {"FINISHED", "FAILED"}
        run, mine = found["00001-search"], own["00001-search"]
        assert run.data.params["hash"] == mine.settings["hash"]
        assert run.data.metrics["val_bpb"] == pytest.approx(mine.scores["val_bpb"])
        history = client.get_metric_history(run.info.run_id, "val_loss")
        points = [(each.step, each.value) for each in history]
        assert points == [(point.steps, point.val_loss) for point in mine.points]
        assert mine.program in run.data.tags["mlflow.note.content"]

    def test_a_deleted_run_hides_none_of_the_next_page(self) -> None:
        """MLflow's pages count from the start of what is there at the time."""
        there = [("a", "RUNNING"), ("b", "FINISHED"), ("c", "FINISHED"), ("d", "FAILED")]

        class Client:
            def search_runs(self, _: Any, max_results: int, page_token: int | None) -> Any:
                start = page_token or 0
                page = Page(made(*each) for each in there[start : start + 2])
                page.token = start + 2 if start + 2 < len(there) else None
                return page

            def delete_run(self, id: str) -> None:
                there[:] = [each for each in there if each[0] != id]

        class Page(list[Any]):
            token: int | None

        def made(id: str, status: str) -> Any:
            info = SimpleNamespace(run_id=id, status=status)
            return SimpleNamespace(info=info, data=SimpleNamespace(tags={exporter.KEY: id}))

        assert exporter._known(Client(), "1") == {"b", "c", "d"}
        assert [id for id, _ in there] == ["b", "c", "d"]

    def test_an_address_that_is_none(self, folder: Path) -> None:
        told = refusal(1, "mlflow", "small", "--uri", "nosuch://there")
        assert told.startswith("primevo: --uri nosuch://there: ") and told.count("\n") == 1


def failing_at(number: int, add: Any) -> Any:
    """`add`, which breaks off in its call of that number after the run was made."""
    calls = 0

    def broken(client: Any, experiment: str, run: TrackedRun) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            client.create_run(experiment, run_name=run.name, tags={exporter.KEY: run.key})
            raise AssertionError("it broke")
        add(client, experiment, run)

    return broken


@pytest.mark.parametrize("package", ["tensorboard", "mlflow"])
def test_an_extra_that_is_missing(
    folder: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("search.cli.commands.tracking.find_spec", lambda name: None)
    where = {"tensorboard": ("--to", "tb"), "mlflow": ("--uri", "sqlite:///mlflow.db")}[package]
    assert f"pip install 'primevo[{package}]'" in refusal(2, package, "small", *where)
