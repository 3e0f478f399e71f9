"""Plug-ins that a config names: loaded before it is checked, whoever reads it, by whatever verb."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from search.cli import doctor, running
from search.config.file import load
from search.config.plugins import changes, stored_config, versions
from search.errors import ConfigError, UsageError
from tests.cli.command import CONFIG, data, primevo, refusal
from tests.cli.instant import InstantPool
from tests.plugins.conftest import EXAMPLE, Write
from workers import plugins
from workers.data.corpora import CORPORA

NAME = "primevo_example.corpus"
WITH_PLUGIN = f"plugins: [{NAME}]\n" + CONFIG.replace(
    "task:", "task:\n  data: {source: counting, options: {documents: 9}}"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setattr(running, "Pool", InstantPool)
    (tmp_path / "small.yaml").write_text(WITH_PLUGIN)
    return tmp_path


def forget() -> None:
    """As in a new process: nothing is loaded yet."""
    plugins._versions.clear()
    CORPORA.pop("counting", None)
    for name in [name for name in sys.modules if name.startswith("primevo_")]:
        del sys.modules[name]


def lose() -> None:
    """As on a machine that lacks the plug-in."""
    forget()
    sys.path.remove(str(EXAMPLE))


def problems(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return str(caught.value)


def test_what_a_plugin_brings_can_be_named(folder: Path, example: None) -> None:
    config = load(folder / "small.yaml")
    assert config.plugins == (NAME,)
    assert config.task.data.source == "counting"
    forget()
    assert stored_config(config.model_dump_json(), "small") == config


def test_without_the_plugin_its_corpus_is_unknown(folder: Path, example: None) -> None:
    message = problems(folder / "small.yaml", "plugins=[]")
    assert "small.yaml:3: task.data.source: unknown corpus 'counting'; allowed: sotu" in message
    assert "1 problem" in message


def test_a_plugin_may_be_set_on_the_command_line(folder: Path, example: None) -> None:
    (folder / "other.yaml").write_text(WITH_PLUGIN.partition("\n")[2])
    assert load(folder / "other.yaml", [f"plugins=[{NAME}]"]).plugins == (NAME,)


def test_errors_of_a_plugins_corpus_stand_at_the_key_that_it_names(
    folder: Path, example: None
) -> None:
    message = problems(folder / "small.yaml", "task.data.options.documents=two")
    assert "small.yaml:3: task.data.options: data.options.documents is two: write a wh" in message
    message = problems(folder / "small.yaml", "task.data.options={document: 5}")
    assert "did you mean 'documents'?" in message


def test_a_plugin_that_cannot_be_loaded_is_a_problem_with_its_place(
    folder: Path, write: Write
) -> None:
    """What it would have brought is unknown, so nothing is said of the names that it may bring."""
    (folder / "small.yaml").write_text("seed: 1\nseed: 2\n" + WITH_PLUGIN)
    write("primevo_bad.py", "1 / 0")
    message = problems(folder / "small.yaml", "plugins=[primevo_bad, primevo_none]")
    assert "3 problems" in message
    assert ": plugins[0]: plug-in 'primevo_bad' cannot be imported: ZeroDivision" in message
    assert ": plugins[1]: no plug-in 'primevo_none'" in message
    assert "small.yaml:2: seed: written twice" in message
    message = problems(folder / "small.yaml")
    assert f"small.yaml:3: plugins[0]: no plug-in '{NAME}'" in message
    assert "counting" not in message


@pytest.mark.parametrize("value", ["primevo_example", "[1]", "{a: 1}"])
def test_plugins_that_are_no_list_of_names(folder: Path, value: str) -> None:
    (folder / "small.yaml").write_text(CONFIG)
    assert "plugins" in problems(folder / "small.yaml", f"plugins={value}")


READERS = (
    ("resume", "small"),
    ("status", "small"),
    ("top", "small"),
    ("show", "small", "1"),
    ("evaluate", "small", "1", "--seeds", "1"),
    ("export", "small", "1", "--to", "exported"),
    ("check", "--finalists", "small"),
)


def test_every_verb_that_reads_a_campaign_loads_its_plugins(folder: Path, example: None) -> None:
    primevo("launch", "small.yaml", "--set", "search.candidates=1", "--set", "search.final.top=0")
    for verb in ("status", "top", "show"):
        forget()
        primevo(*next(reader for reader in READERS if reader[0] == verb))
        assert "counting" in CORPORA
    lose()
    for reader in READERS:
        if reader[0] == "resume":
            continue  # of a finished campaign, it prints the end
        message = refusal(2, *reader)
        assert f"campaign 'small' was launched with a plug-in: no plug-in '{NAME}'" in message


def test_resume_needs_the_plugins(folder: Path, example: None) -> None:
    from search.storage.store import Store

    config = load(folder / "small.yaml")
    with Store.open("sqlite:///primevo.db") as store:
        store.create_campaign("small", config.model_dump_json(), 0)
    lose()
    assert f"no plug-in '{NAME}'" in refusal(2, "resume", "small")
    sys.path.append(str(EXAMPLE))
    primevo("resume", "small")
    assert "counting" in CORPORA


@pytest.mark.parametrize(
    "verb", [("primitives",), ("seeds",), ("check", "--seed-program", "transformer")]
)
def test_verbs_on_programs_take_plugins(folder: Path, example: None, verb: tuple[str, ...]) -> None:
    primevo(*verb, "--plugin", NAME)
    assert "counting" in CORPORA
    forget()
    primevo(*verb, "--config", "small.yaml")
    assert "counting" in CORPORA
    assert "no plug-in 'primevo_none'" in refusal(2, *verb, "--plugin", "primevo_none")


def test_workers_are_told_the_plugins(
    folder: Path, example: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    class Recording(InstantPool):
        def __init__(self, *arguments: object, plugins: object) -> None:
            told.append(plugins)
            super().__init__(*arguments)

    monkeypatch.setattr(running, "Pool", Recording)
    primevo("evaluate", "--seed-program", "transformer", "--config", "small.yaml", "--seeds", "1")
    assert told == [(NAME,)]


def test_doctor_lists_plugins(
    folder: Path,
    example: None,
    write: Write,
    announce: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[object] = []
    monkeypatch.setattr(doctor, "_devices", lambda plugins: str(told.append(plugins)))
    announce("primevo-loud", "loud", "primevo_loud")
    write("primevo_loud.py", "raise SystemExit('imported')")
    findings = {row["check"]: row for row in data("doctor")}
    assert findings["plug-in loud"]["detail"] == "2.5: primevo_loud, not imported"
    assert findings["corpora"]["detail"].startswith("sotu, text")
    assert not any("config" in check for check in findings)

    findings = {row["check"]: row for row in data("doctor", "--config", "small.yaml")}
    assert findings["config small.yaml"]["ok"]
    assert findings[f"the config's plug-in {NAME}"]["detail"] == f"unknown: {NAME}"
    assert told == [(), (NAME,)]
    lose()
    found = primevo("doctor", "--config", "small.yaml", code=1).stdout
    assert "no plug-in" in found


def test_versions_that_have_changed_are_told(write: Write) -> None:
    write("primevo_a.py", "__version__ = '1'\ndef register(): pass")
    write("primevo_b.py", "__version__ = '4'\ndef register(): pass")
    now = versions(["primevo_a", "primevo_b"])
    assert now == [{"name": "primevo_a", "version": "1"}, {"name": "primevo_b", "version": "4"}]
    assert changes(now, now) == changes([], now) == []
    before = [{"name": "primevo_a", "version": "0.9"}, {"name": "primevo_b", "version": "4"}]
    assert changes(before, now) == [
        "plug-in 'primevo_a' was at version 0.9 when the campaign was launched and is at 1 now"
    ]
    with pytest.raises(UsageError, match="no plug-in 'primevo_none'"):
        versions(["primevo_none"])
