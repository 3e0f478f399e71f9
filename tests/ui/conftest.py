"""Folders to run the command line in, as its own tests have them."""

from __future__ import annotations

from tests.cli.conftest import campaign, empty, finished

__all__ = ["campaign", "empty", "finished"]
