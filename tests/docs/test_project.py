"""What a newcomer looks for by name: the verbs in the README, how to cite, what has changed."""

from __future__ import annotations

import tomllib

import yaml

from docs.reference import pages
from search.cli.app import app
from tests.docs.snippets import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_readme_names_every_verb() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("| verb | does |")[2].partition("\n\n")[0]
    verbs = [command.name for command in app.registered_commands]
    assert len(verbs) > 20
    assert [verb for verb in verbs if f"`{verb}" not in table] == []


def test_the_citation_is_of_this_version() -> None:
    """By the fields that schema 1.2.0 of the Citation File Format requires."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["cff-version"] == "1.2.0" and cited["version"] == PROJECT["version"]
    assert cited["license"] == PROJECT["license"]
    assert [author["name"] for author in cited["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]


def test_the_changes_know_this_version() -> None:
    changes = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    heads = [line for line in changes.splitlines() if line.startswith("## ")]
    assert any(PROJECT["version"] in head for head in heads)


def test_the_reference_can_be_made() -> None:
    """Each page has a title, and each table as many cells in every row."""
    made = pages()
    assert {"cli", "config", "metrics", "mutations", "primitives", "seed-programs"} <= set(made)
    for text in made.values():
        assert text.startswith("# ")
        for table in text.split("\n\n"):
            rows = [line.replace("\\|", "") for line in table.splitlines() if line[:2] == "| "]
            assert len({row.count("|") for row in rows}) <= 1, table
