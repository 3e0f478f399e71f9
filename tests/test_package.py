"""A built wheel works where there is no checkout: seed programs, examples, migrations are found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from primitives.programs.seeds import seed_names

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Installed:
    """The wheel's content in a folder of its own, first on the path, away from the checkout."""

    wheel: Path
    site: Path
    home: Path

    def run(self, *command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.site)}
        environment.pop("PRIMEVO_STORAGE", None)
        result = subprocess.run(
            [sys.executable, *command],
            cwd=self.home, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout

    def primevo(self, *arguments: str) -> str:
        return self.run(str(self.site / "bin" / "primevo"), *arguments)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("*.whl")
    site, home = folder / "site", folder / "home"
    home.mkdir()
    install = ["install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([*pip, *install], check=True)
    return Installed(wheel, site, home)


def test_the_installed_code_is_the_one_that_runs(installed: Installed) -> None:
    printed = installed.run("-c", "import search, primitives; print(search.__file__)")
    assert Path(printed.strip()).is_relative_to(installed.site)


def test_init_writes_an_example_that_validates(installed: Installed) -> None:
    installed.primevo("init")
    written = installed.home / "quickstart.yaml"
    assert written.read_text() == (ROOT / "configs" / "quickstart.yaml").read_text()
    config = json.loads(installed.primevo("validate", "quickstart.yaml", "-o", "json"))
    assert config["search"]["seeds"] == ["transformer"]


def test_seed_programs_are_found(installed: Installed) -> None:
    rows = json.loads(installed.primevo("seeds", "-o", "json"))
    assert [row["name"] for row in rows] == list(seed_names())


def test_migrations_are_found(installed: Installed) -> None:
    script = """
import search.storage.store
search.storage.store.Store.open("sqlite:///new.db").close()
import sqlite3
rows = sqlite3.connect("new.db").execute("select name from sqlite_master where type = 'table'")
print(sorted(name for name, in rows))
"""
    tables = installed.run("-c", script)
    for name in ("alembic_version", "campaigns", "candidates", "evaluations"):
        assert f"'{name}'" in tables


def test_the_wheel_holds_what_it_should(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    top = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert top == {"primevo", "search", "primitives", "workers"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "__pycache__" in name]
    metadata = next(name for name in names if name.endswith("METADATA"))
    text = zipfile.ZipFile(installed.wheel).read(metadata).decode()
    assert "Requires-Python: <3.13,>=3.11" in text
