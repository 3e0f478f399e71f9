"""What a campaign needs of a machine, looked at one by one; nothing found wrong stops the next."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.cli.commands.options import DEFAULT_STORAGE
from search.config.file import load
from search.config.plugins import load_plugins
from search.errors import NotFoundError, PrimevoError
from workers.data.corpora import CORPORA, documents
from workers.plugins import installed, installed_version, search_path
from workers.spec.task import DataSpec

START_S = 180.0
"""A worker that has not started by then is a finding."""

OPTIONAL = re.compile(r"extra\s*==")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check; `detail` says what is there, or what to do where it is not `ok`."""

    check: str
    ok: bool
    detail: str


def examine(storage: str | None, config: Path | None = None) -> list[Finding]:
    """All findings, in the order of a first installation; with a config, also what it needs."""
    findings = [_python(), *_packages(), *_plugins()]
    named: tuple[str, ...] = ()
    if config is not None:
        try:
            named = load(config).plugins
            findings += [Finding(f"config {config}", True, "valid"), *_loaded(named)]
        except PrimevoError as error:
            findings.append(Finding(f"config {config}", False, str(error)))
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("corpora", _corpora),
        ("corpus sotu", _sotu),
        ("token cache", _cache),
        ("database", lambda: _database(storage or DEFAULT_STORAGE)),
        ("Ray and devices", lambda: _devices(named)),
    )
    for name, check in checks:
        try:
            findings.append(Finding(name, True, check()))
        except Exception as error:  # whatever is wrong with this machine is the finding
            findings.append(Finding(name, False, str(error) or repr(error)))
    return findings


def _python() -> Finding:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    version = f"{platform.python_version()} on {platform.platform(terse=True)}"
    return Finding("Python", fits, version if fits else f"{version}; 3.11 or 3.12 is needed")


def _packages() -> list[Finding]:
    """The requirements of this distribution, those of extras only where they are installed."""
    try:
        requirements = importlib.metadata.requires("primevo") or []
    except importlib.metadata.PackageNotFoundError:
        return [Finding("primevo", False, "not installed: pip install -e . in the checkout")]
    findings = [Finding("primevo", True, importlib.metadata.version("primevo"))]
    for requirement in requirements:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        optional = OPTIONAL.search(requirement) is not None
        if any(finding.check == name for finding in findings):
            continue
        try:
            findings.append(Finding(name, True, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            if not optional:
                findings.append(Finding(name, False, f"missing: pip install '{requirement}'"))
    return findings


def _plugins() -> list[Finding]:
    """What is installed, without importing it."""
    return [
        Finding(f"plug-in {name}", True, f"{installed_version(name)}: {module}, not imported")
        for name, module in installed().items()
    ]


def _loaded(names: Sequence[str]) -> list[Finding]:
    """The plug-ins of the config, which are in the tables by now."""
    return [
        Finding(f"the config's plug-in {one.name}", True, f"{one.version}: {one.module}")
        for one in load_plugins(names)
    ]


def _corpora() -> str:
    """The corpora that can be read here, and what the others lack. Each is a matter of choice."""
    rows = CORPORA.values()
    ready = ", ".join(row.name for row in rows if not row.lacks)
    return "; ".join([ready, *(f"not {row.name}: {row.lacks}" for row in rows if row.lacks)])


def _sotu() -> str:
    texts = [document.text for document in documents(DataSpec())]
    return f"{len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} million characters"


def _cache() -> str:
    from workers.machine.caches import cache_folder

    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return f"{folder} can be written"


def _database(storage: str) -> str:
    from search.secret import shown
    from search.storage.store import Store

    try:
        with Store.open(storage, create=False) as store:
            return f"{shown(storage)}: {len(store.campaigns())} campaigns"
    except NotFoundError:
        folder = os.getcwd()
        if not os.access(folder, os.W_OK):
            raise PrimevoError(
                f"{shown(storage)} cannot be made: {folder} is not writable"
            ) from None
        return f"{shown(storage)} does not exist yet; launch makes it"


def _devices(plugins: Sequence[str]) -> str:
    """Starts Ray and one worker, which loads the plug-ins, imports the framework and binds it to
    its device."""
    from workers.machine.devices import cpu_count, gpu_count
    from workers.pool.cluster import join
    from workers.pool.pool import ENTRY, WARM_UP
    from workers.pool.worker import Setup
    from workers.spec.pool import PoolSpec
    from workers.spec.task import Task

    cluster = join(PoolSpec())
    try:
        share = cluster.layout
        path = search_path() if plugins else ()
        setup = Setup(Task(), share, None, ENTRY, WARM_UP, tuple(plugins), path)
        worker = cluster.start_worker(setup)
        cluster.call(worker.prepare).result(START_S)
    finally:
        cluster.leave()
    return (
        f"{cpu_count()} CPUs, {gpu_count()} GPUs: {share.count} workers, each with {share.cpus} "
        f"threads and {share.gpus:g} GPUs; one started"
    )
