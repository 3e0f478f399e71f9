"""The password of a database's URL: used, and never seen again."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from search.cli import running
from search.cli.app import app
from search.cli.commands.opening import option
from search.cli.doctor import _database
from search.secret import shown, without_passwords
from search.storage.store import Store
from tests.cli.command import CONFIG, primevo
from tests.cli.instant import InstantPool
from tests.postgresql import PASSWORD, USER, Server
from tests.search.recorded import everything

WRONG = "Wr0ng-" + PASSWORD[::-1]

VERBS = (
    ("list",), ("status",), ("status", "small"), ("top", "small"), ("show", "small", "1"),
    ("lineage", "small", "1"), ("curve", "small"), ("report", "small"), ("stop", "small"),
    ("resume", "small"), ("delete", "small", "--yes"), ("check", "--finalists", "small"),
    ("export", "small", "1", "--to", "there"), ("launch", "small.yaml", "--name", "other"),
    ("evaluate", "small", "1"), ("db", "check"), ("db", "upgrade"),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a config; workers answer at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setattr(running, "Pool", InstantPool)
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def said(*arguments: str, storage: str = "") -> tuple[int, str]:
    """Exit code and all that a verb says, on both streams."""
    environment = {"PRIMEVO_STORAGE": storage} if storage else {}
    result = CliRunner().invoke(app, arguments, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), arguments
    return result.exit_code, result.stdout + result.stderr


def test_wrong_host_password_and_database(
    postgresql: Server, folder: Path, closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Each verb, told so in one line that names what is wrong."""
    caplog.set_level(logging.DEBUG)
    cases = {
        "no server takes connections there": postgresql.url("postgres").replace(
            f":{postgresql.port}/", f":{closed_port}/"
        ),
        "the server refuses the user or the password": postgresql.url("postgres", password=WRONG),
        "the server has no such database": postgresql.url("nosuch"),
        "there is no such host": postgresql.url("postgres", host="no-such-host.invalid"),
    }
    for reason, url in cases.items():
        # finding out that there is no such host may take its time
        for verb in VERBS if "host" not in reason else VERBS[:1]:
            code, text = said(*verb, storage=url)
            assert (code, reason in text) == (1, True), (verb, text)
            assert len(text.splitlines()) == 1
            assert PASSWORD not in text and WRONG not in text
            assert f"//{USER}:***@" in text
        for pair in ((url, "sqlite:///new.db"), ("sqlite:///new.db", url)):
            Store.open("sqlite:///new.db").close()
            code, text = said("db", "copy", *pair)
            assert (code, reason in text) == (1, True), text
            assert PASSWORD not in text and WRONG not in text
    assert PASSWORD not in caplog.text and WRONG not in caplog.text


@pytest.mark.parametrize(
    "where", ["config", *(pytest.param(each, marks=pytest.mark.slow) for each in ("flag", "env"))]
)
def test_a_campaign_whose_url_has_a_password(
    postgresql: Server, folder: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that is printed, written or recorded has it."""
    caplog.set_level(logging.DEBUG)
    url = postgresql.new_database()
    if where == "config":
        (folder / "small.yaml").write_text(f"storage: {url}\n{CONFIG}")
    flag = () if where == "config" else ("--storage", url)
    environment = url if where == "env" else ""
    code, text = said("validate", "small.yaml")
    code, launched = said(
        "launch", "small.yaml", *(flag if where == "flag" else ()), storage=environment
    )
    assert code == 0, launched
    text += launched
    for verb in VERBS:
        if verb[0] in ("launch", "delete", "export", "evaluate"):
            continue
        code, more = said(*verb, "--storage", url)
        assert code == 0 and more, verb
        text += more
    text += said("launch", "small.yaml", "--storage", url)[1]  # its name is taken
    text += said("db", "copy", url, "sqlite:///copy.db")[1] + _database(url)
    assert PASSWORD not in text and PASSWORD not in caplog.text
    (folder / "small.yaml").unlink()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"copy.db", "small-report.html"} <= {path.name for path in files}
    assert not any(PASSWORD.encode() in path.read_bytes() for path in files)
    assert PASSWORD not in repr(everything(url, "small"))
    if where == "config":
        assert "***@127.0.0.1" in repr(everything(url, "small"))


def test_the_command_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    url = f"postgresql://me:{PASSWORD}@host/db"
    assert option(url) == " --storage 'postgresql://me:***@host/db'"
    assert option("postgresql://me@host/db") == " --storage postgresql://me@host/db"
    monkeypatch.setenv("PRIMEVO_STORAGE", url)
    assert option(url) == ""


SOUND = (
    f"postgresql://me:{PASSWORD}@host:5432/db?sslmode=require",
    f"postgresql+psycopg://me:{PASSWORD}@/db",
    f"postgresql://me@host/db?password={PASSWORD}&sslmode=require",
    f"postgresql://me:{PASSWORD}/slash@host/db",
    f"postgresql://me:{PASSWORD}:colon@host/db",
    f"postgresql://me:{PASSWORD}#?@host/db",
)
MALFORMED = (
    f"postgresql://me:{PASSWORD}@@host/db",
    f"postgresql://me:at@{PASSWORD}@host/db",
    f"postgresql://me:{PASSWORD}@host:notaport/db",
    f"postgresql://me:{PASSWORD}",
    f"postgresql://me:{PASSWORD}/db",
    f"postgresql:me:{PASSWORD}@host/db",
    f"postgres://me:{PASSWORD}@host/db",
    f"mysql://me:{PASSWORD}@host/db",
    f"postgresql+psycopg2://me:{PASSWORD}@host/db",
    f"postgresql+asyncpg://me:{PASSWORD}@host/db",
    f"me:{PASSWORD}@host/db",
    f"postgresql://me:{PASSWORD}@host",
)


@pytest.mark.parametrize("url", SOUND)
def test_a_password_is_found_in_a_url(url: str) -> None:
    assert PASSWORD not in shown(url) and PASSWORD not in without_passwords(f"storage {url}: no")
    assert shown(url).count("***") == 1


@pytest.mark.parametrize("url", MALFORMED)
def test_urls_that_are_malformed(url: str, folder: Path) -> None:
    assert PASSWORD not in shown(url)
    code, text = said("list", "--storage", url)
    assert (code, PASSWORD in text) == (2, False), text
    assert len(text.splitlines()) == 1
    for arguments in (("db", "copy", url, "sqlite:///a.db"), ("db", "copy", "sqlite:///a.db", url)):
        Store.open("sqlite:///a.db").close()
        assert PASSWORD not in said(*arguments)[1]


def test_what_has_no_password_is_shown_as_it_is() -> None:
    for url in (
        "sqlite:////home/me:you@there/a.db", "postgresql://me@host:5432/db", "nonsense",
        "postgresql://host:5432/db", "postgresql:///db?host=/run/postgresql",
    ):  # fmt: skip
        assert shown(url) == url
    text = "see https://example.org/a@b: it says 5:3@noon"
    assert without_passwords(text) == text


def test_a_missing_driver_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    code, text = said("list", "--storage", f"postgresql://me:{PASSWORD}@host/db")
    assert (code, PASSWORD in text) == (1, False)
    assert "PostgreSQL's driver is missing" in text and "pip install 'primevo[postgres]'" in text


def test_upgrade_check_and_copy(postgresql: Server, folder: Path) -> None:
    """What they print where all is well."""
    primevo("launch", "small.yaml")
    url = postgresql.new_database()
    done = primevo("db", "copy", "sqlite:///primevo.db", url, "--campaign", "small")
    assert done.stdout.startswith("copied campaign 'small': 30 candidates and ")
    assert "weights" in done.stderr
    assert primevo("db", "check", "--storage", url).stdout.startswith("sound: 1 campaigns, 30 ca")
    told = primevo("db", "upgrade", "--storage", url, "--to", "0002").stdout
    assert told.startswith(shown(url).replace("+psycopg", "")) and told.endswith("to 0002\n")
    assert "primevo db upgrade" in primevo("db", "check", "--storage", url, code=1).stdout
    assert "from schema revision 0002 to 0" in primevo("db", "upgrade", "--storage", url).stdout
    assert "nothing to do" in primevo("db", "upgrade", "--storage", url).stdout
    assert "nothing was copied" in primevo("db", "copy", "sqlite:///primevo.db", url, code=2).stderr
