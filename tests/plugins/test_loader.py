"""Plug-ins as modules: which are found, what is told of those that are not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest

from tests.plugins.conftest import EXAMPLE, Write
from workers.data.corpora import CORPORA, DataError, documents
from workers.plugins import Plugin, PluginError, installed, installed_version, load, sources
from workers.spec.task import DataSpec

ROW = """\
from workers.data.corpora import CORPORA, Corpus, Document

def register():
    CORPORA.register(Corpus("{name}", "a test", lambda source: iter(()), lambda source: {{}}))
"""


class StandIn:
    """Finds `primevo_stub.py` in a folder where a module of another name is asked for."""

    def __init__(self, name: str, folder: str) -> None:
        self.name, self.file = name, Path(folder) / "primevo_stub.py"

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name == self.name:
            return spec_from_file_location(name, self.file)
        return None


def error_of(name: str) -> str:
    with pytest.raises(PluginError) as caught:
        load([name])
    message = str(caught.value)
    assert f"'{name}'" in message
    assert "\n" not in message
    return message


def test_the_rows_of_a_plugin_are_in_the_tables(example: None) -> None:
    assert load(["primevo_example.corpus"]) == (
        Plugin("primevo_example.corpus", "primevo_example.corpus", "unknown"),
    )
    spec = DataSpec(source="counting", options={"documents": 13})
    texts = [document.text for document in documents(spec)]
    assert len(texts) == 13
    assert texts[12].startswith("The number 12 is one two. ")
    with pytest.raises(DataError, match="documents is 2: write a whole number"):
        list(documents(DataSpec(source="counting", options={"documents": 2})))


def test_loading_twice_registers_once(write: Write) -> None:
    write("primevo_one.py", ROW.format(name="one"))
    first = load(["primevo_one"])
    row = CORPORA["one"]
    assert load(["primevo_one", "primevo_one"]) == first * 2
    assert CORPORA["one"] is row


def test_nothing_is_imported_but_what_is_named(write: Write, announce: Callable[..., None]) -> None:
    write("primevo_named.py", ROW.format(name="named"))
    write("primevo_loud.py", "raise SystemExit('imported')")
    announce("loud", "loud", "primevo_loud")
    assert installed()["loud"] == "primevo_loud"
    assert installed_version("loud") == "2.5"
    load(["primevo_named"])
    assert "primevo_loud" not in sys.modules


def test_an_installed_plugin_has_a_name_and_its_distributions_version(
    write: Write, announce: Callable[..., None]
) -> None:
    write("primevo_pkg/__init__.py", "__version__ = 'another'")
    write("primevo_pkg/rows.py", ROW.format(name="rows"))
    announce("primevo-pkg", "shining", "primevo_pkg.rows")
    assert load(["shining"]) == (Plugin("shining", "primevo_pkg.rows", "2.5"),)
    assert load(["primevo_pkg.rows"]) == (Plugin("primevo_pkg.rows", "primevo_pkg.rows", "2.5"),)
    assert "rows" in CORPORA


@pytest.mark.parametrize("file", ["primevo_lib/__init__.py", "primevo_lib.py"])
def test_a_module_of_a_distribution_that_announces_nothing(write: Write, file: str) -> None:
    write(file, "__version__ = 'another'\ndef register(): pass")
    write("lib-3.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: lib\nVersion: 3.1\n")
    write("lib-3.1.dist-info/RECORD", f"{file},sha256=x,1\nlib-3.1.dist-info/METADATA,,\n")
    assert load(["primevo_lib"])[0].version == "3.1"


def test_a_module_without_a_distribution_gives_its_own_version(write: Write) -> None:
    write("primevo_own.py", "__version__ = '7'\ndef register(): pass")
    assert load(["primevo_own"])[0].version == "7"


def test_a_module_in_the_current_folder_is_found_after_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "primevo_here.py").write_text("__version__ = 'here'\ndef register(): pass")
    (tmp_path / "primevo_both.py").write_text("__version__ = 'here'\ndef register(): pass")
    write("primevo_both.py", "__version__ = 'path'\ndef register(): pass")
    assert [plugin.version for plugin in load(["primevo_here", "primevo_both"])] == ["here", "path"]


def test_a_name_that_is_nowhere(announce: Callable[..., None]) -> None:
    message = error_of("primevo_nothing.at_all")
    assert "no plug-in 'primevo_nothing.at_all': no plug-in is installed" in message
    assert "nor can a module of that name be imported" in message
    assert "PYTHONPATH" in message
    announce("primevo-pkg", "shining", "primevo_pkg")
    message = error_of("shinning")
    assert "did you mean 'shining'?" in message
    assert "installed plug-ins: shining" in message


@pytest.mark.parametrize("name", ["", "a/b.py", "./a", ".a", "a..b", "a-b"])
def test_a_name_that_is_no_module_path(name: str) -> None:
    assert "package.module" in error_of(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import primevo_no_such", ["cannot be imported", "ModuleNotFoundError", "_no_such'"]),
        ("\n1 / 0", ["cannot be imported: ZeroDivisionError: division by zero", "bad.py:2)"]),
        ("def register(:", ["cannot be imported", 'primevo_bad.py", line 1', "SyntaxError"]),
        ("raise SystemExit(3)", ["cannot be imported: SystemExit: 3"]),
        ("x = 1", ["has no function register()"]),
        ("register = 1", ["has no function register()"]),
        ("\ndef register():\n  raise KeyError('a\\nb')", ["cannot register its rows: KeyError"]),
        (
            ROW.format(name="sotu"),
            ["cannot register", "corpus 'sotu' exists already", "bad.py:4"],
        ),
    ],
)
def test_a_plugin_that_fails_is_named_with_the_reason(
    write: Write, text: str, expected: list[str]
) -> None:
    write("primevo_bad.py", text)
    message = error_of("primevo_bad")
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    "text", ["import jax\ndef register(): pass", "def register():\n  import jax"]
)
def test_a_plugin_that_imports_a_framework_is_refused(
    write: Write, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework is a stand-in, so that this process stays as it is."""
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    write("primevo_heavy.py", text)
    write("primevo_stub.py", "")
    monkeypatch.setattr(sys, "meta_path", [StandIn("jax", sys.path[-1]), *sys.meta_path])
    assert "imports jax while it is loaded: import it inside" in error_of("primevo_heavy")
    del sys.modules["jax"]


def test_one_that_failed_may_be_mended_and_loaded(write: Write) -> None:
    write("primevo_bad.py", "def register(): raise ValueError('not yet')")
    error_of("primevo_bad")
    del sys.modules["primevo_bad"]
    write("primevo_bad.py", "def register(): pass  # mended, and of another length")
    assert load(["primevo_bad"])[0].name == "primevo_bad"


def test_sources_are_whole_packages_and_single_files(example: None, write: Write) -> None:
    write("primevo_file.py", "def register(): pass")
    loaded = load(["primevo_example.corpus", "primevo_file", "primevo_file"])
    package, file = sources(loaded)
    assert package == EXAMPLE / "primevo_example"
    assert file.name == "primevo_file.py"
