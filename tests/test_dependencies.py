"""The tested sets of dependencies fit what `pyproject.toml` asks for."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def requirements() -> dict[str, Requirement]:
    """What the package and its extras name, its own name left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    parsed = [Requirement(text) for texts in lists for text in texts]
    return {canonicalize_name(one.name): one for one in parsed if one.name != project["name"]}


def pinned(name: str) -> dict[str, Version]:
    lines = (ROOT / "configs" / "constraints" / f"{name}.txt").read_text().splitlines()
    pairs = [line.partition(";")[0].strip().split("==") for line in lines if line.strip()]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def lowest(requirement: Requirement) -> Version:
    [bound] = [one for one in requirement.specifier if one.operator == ">="]
    return Version(bound.version)


def test_every_dependency_has_a_lower_bound_and_no_upper_one() -> None:
    for requirement in requirements().values():
        assert [bound.operator for bound in requirement.specifier] == [">="], requirement


@pytest.mark.parametrize("name", ["oldest", "newest"])
def test_a_set_holds_every_dependency_in_an_allowed_version(name: str) -> None:
    versions = pinned(name)
    for package, requirement in requirements().items():
        assert versions[package] in requirement.specifier, requirement


def test_the_oldest_set_is_the_lower_bounds() -> None:
    versions = pinned("oldest")
    for package, requirement in requirements().items():
        assert versions[package] == lowest(requirement), requirement
