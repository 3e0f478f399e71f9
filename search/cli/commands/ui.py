"""Campaigns in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.commands.options import DEFAULT_STORAGE, Storage
from search.errors import UsageError


def ui(
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0 takes any that is free.")
    ] = 8421,
    storage: Storage = None,
) -> None:
    """Show campaigns in a browser, live. On this machine alone; nothing is written."""
    try:
        from search.ui import server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UsageError(
            f"ui needs {error.name}, which is not installed; install it by: "
            "pip install 'primevo[ui]'"
        ) from None
    server.serve(
        storage or DEFAULT_STORAGE,
        port,
        lambda taken: print(f"http://{server.ADDRESS}:{taken}/", flush=True),
    )
