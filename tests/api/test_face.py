"""`import primevo`: quick, lazy, and all that it promises is there."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import primevo

ROOT = Path(__file__).parents[2]
FRAMEWORKS = {"tensorflow", "keras", "jax", "ray"}


def fresh(script: str) -> list[str]:
    """The top-level modules that a fresh interpreter has after the script, with what it printed."""
    end = "import json, sys\nprint(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    result = subprocess.run(
        [sys.executable, "-c", f"{script}\n{end}"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    found: list[str] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_importing_it_imports_nothing_else() -> None:
    script = (
        "import time; start = time.process_time(); import primevo; "
        "assert time.process_time() - start < 0.05"
    )
    heavy = {*FRAMEWORKS, "numpy", "pandas", "sqlalchemy", "pydantic", "plotly", "rich", "search"}
    assert heavy.isdisjoint(fresh(script))


def test_campaigns_and_programs_import_no_framework(tmp_path: Path) -> None:
    script = f"""
import primevo
config = {{"search": {{"candidates": 4, "population": 4, "tournament": 2,
           "budget": {{"unit": "steps", "base": 5}}, "final": {{"top": 0}}}}}}
with primevo.Campaign(config, {str(tmp_path / "x.db")!r}, name="x") as campaign:
    while asked := campaign.ask():
        for each in asked:
            campaign.tell(each, 3.0 - 0.1 * each.id)
    assert campaign.best.id == 4 and len(campaign.top()) == 4
    primevo.mutate(primevo.load_program("primer")).text
    campaign._repr_html_()
"""
    assert FRAMEWORKS.isdisjoint(fresh(script))


def test_every_name_is_there_and_lists_agree() -> None:
    for name in primevo.__all__:
        assert getattr(primevo, name).__doc__, name
        assert name in dir(primevo)
    assert set(primevo.__all__) == set(primevo._HOMES)
    for name, home in primevo._HOMES.items():
        assert getattr(import_module(home), name) is getattr(primevo, name)


def test_a_type_checker_sees_the_same_names() -> None:
    tree = ast.parse(Path(primevo.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == primevo._HOMES
    assert (Path(primevo.__file__).parent / "py.typed").exists()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Campain'"):
        primevo.Campain  # noqa: B018
    assert primevo.__version__
