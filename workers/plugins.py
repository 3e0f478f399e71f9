"""Plug-ins: modules of other people that add rows to the tables.

A plug-in is a module with a function `register()`, which calls `TABLE.register(row)` for each row
that it adds. A config names a plug-in by its module's path, or by the name under which an installed
distribution announces it (entry points of the group `primevo.plugins`). Nothing is imported but
what a config or a command line names.

A plug-in may import no framework while it is loaded, but inside its functions: commands stay quick,
and a worker chooses Keras' backend and binds its device after its plug-ins are loaded.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

GROUP = "primevo.plugins"
"""The group of entry points by which distributions announce plug-ins."""

UNKNOWN = "unknown"
"""The version of a module that belongs to no distribution and has no `__version__`."""


FRAMEWORKS = ("keras", "tensorflow", "jax")


class PluginError(ValueError):
    """A plug-in cannot be loaded; the message names it, and says why in one line."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plug-in whose rows are in the tables. `name` is what the config calls it."""

    name: str
    module: str
    version: str


_versions: dict[str, str] = {}
"""The plug-ins that this process has loaded: module paths, with their versions."""


def load(names: Iterable[str]) -> tuple[Plugin, ...]:
    """Imports the plug-ins and lets them register their rows, in the order of their names.

    A plug-in that this process has loaded before is not asked again. The current folder counts as
    a place of modules, after all others. Raises PluginError for the first that cannot be loaded.
    """
    return tuple(_load(name) for name in names)


def installed() -> dict[str, str]:
    """The plug-ins that distributions announce: module paths by name. Nothing is imported."""
    return {point.name: point.module for point in importlib.metadata.entry_points(group=GROUP)}


def installed_version(name: str) -> str:
    """The version of the distribution that announces a plug-in."""
    [point, *_] = importlib.metadata.entry_points(group=GROUP, name=name)
    return point.dist.version if point.dist else UNKNOWN


def search_path() -> tuple[str, ...]:
    """Where this process looks for modules, as absolute paths."""
    return tuple(os.path.abspath(entry) for entry in sys.path)


def look_in(folders: Iterable[str]) -> None:
    """Adds to the end of this process' search path the folders that it lacks: a module that was
    found before is still found in its old place."""
    known = set(search_path())
    sys.path.extend(folder for folder in folders if folder not in known)


def sources(plugins: Iterable[Plugin]) -> list[Path]:
    """The folder or file of each plug-in's outermost package, each once: with them, the plug-ins
    can be imported on another machine."""
    found: dict[Path, None] = {}
    for plugin in plugins:
        spec = importlib.util.find_spec(plugin.module.partition(".")[0])
        if spec is None:
            continue
        if spec.submodule_search_locations is not None:
            found.update((Path(folder), None) for folder in spec.submodule_search_locations)
        elif spec.origin:
            found[Path(spec.origin)] = None
    return list(found)


def _load(name: str) -> Plugin:
    known = installed()
    path = known.get(name, name)
    if path not in _versions:
        if not all(part.isidentifier() for part in path.split(".")):
            raise PluginError(_missing(name, known))
        look_in([os.getcwd()])
        before = [framework for framework in FRAMEWORKS if framework in sys.modules]
        module = _imported(name, path, known)
        _refuse_frameworks(name, before)
        _register(name, path, module)
        _refuse_frameworks(name, before)
        _versions[path] = _version(module)
    return Plugin(name, path, _versions[path])


def _imported(name: str, path: str, known: dict[str, str]) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(path)
    except (Exception, SystemExit) as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent and f"{path}.".startswith(f"{absent}."):
            raise PluginError(_missing(name, known)) from None
        raise PluginError(f"plug-in '{name}' cannot be imported: {_told(error, path)}") from error


def _register(name: str, path: str, module: ModuleType) -> None:
    register = getattr(module, "register", None)
    if not callable(register):
        raise PluginError(
            f"plug-in '{name}' has no function register(): write one that adds its rows, "
            "for example CORPORA.register(row)"
        )
    try:
        register()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"plug-in '{name}' cannot register its rows: {_told(error, path)}"
        ) from error


def _refuse_frameworks(name: str, before: list[str]) -> None:
    for framework in FRAMEWORKS:
        if framework in sys.modules and framework not in before:
            raise PluginError(
                f"plug-in '{name}' imports {framework} while it is loaded: "
                "import it inside the functions that need it"
            )


def _missing(name: str, known: dict[str, str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ":"
    listed = f"installed plug-ins: {', '.join(known)}" if known else "no plug-in is installed"
    return (
        f"no plug-in '{name}'{hint} {listed}; nor can a module of that name be imported: "
        "name it as package.module, and put its folder on PYTHONPATH"
    )


def _told(error: BaseException, path: str) -> str:
    """The exception in one line, with the last place in the plug-in that it passed."""
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    if isinstance(error, SyntaxError):
        return text
    package = path.partition(".")[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if package in Path(one.filename).with_suffix("").parts]
    return f"{text} ({own[-1].filename}:{own[-1].lineno})" if own else text


def _version(module: ModuleType) -> str:
    """That of the distribution which the module belongs to, else the one that it gives itself."""
    outermost = module.__name__.partition(".")[0]
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.dist and point.module.partition(".")[0] == outermost:
            return point.dist.version
    files = f"\n{outermost}/__init__.py,", f"\n{outermost}.py,"
    for distribution in importlib.metadata.distributions():
        record = "\n" + (distribution.read_text("RECORD") or "")
        if any(file in record for file in files):
            return distribution.version
    return str(getattr(module, "__version__", UNKNOWN))
