"""The command line as tests call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from search.cli.app import app

ROOT = Path(__file__).parent.parent.parent

CONFIG = """\
task:
  model: {d_model: 32, layers: 1}
search:
  population: 8
  tournament: 3
  candidates: 30
  budget: {unit: steps, base: 20, hurdles: 1}
  final: {top: 2, seeds: 3}
"""


def primevo(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return result


def data(*arguments: object) -> Any:
    """The verb's JSON; stdout holds nothing else."""
    return json.loads(primevo(*arguments, "-o", "json").stdout)


def refusal(code: int, *arguments: object) -> str:
    """The message of a command that fails: on stderr, stdout stays empty."""
    result = primevo(*arguments, code=code)
    assert result.stdout == ""
    return result.stderr
