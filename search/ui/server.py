"""The site's server, on this machine alone."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from search.errors import PrimevoError
from search.storage.database import open_read_only
from search.storage.store import Store
from search.ui.site import application

ADDRESS = "127.0.0.1"


def serve(url: str, port: int, tell: Callable[[int], None]) -> None:
    """Serves the database at `url` on a port of the loopback interface (0: any free one) until
    SIGINT or SIGTERM; `tell` is given the port when requests are taken. A PrimevoError where the
    port is taken, or the database cannot be shown."""
    with Store(open_read_only(url)) as store, store.understanding():
        store.campaigns()
    with _listening(port) as listener:
        config = uvicorn.Config(
            application(url), log_level="warning", access_log=False, server_header=False,
            lifespan="off", ws="none", timeout_graceful_shutdown=1,
        )  # fmt: skip
        tell(listener.getsockname()[1])
        with suppress(KeyboardInterrupt):  # uvicorn raises it again when it has ended in order
            uvicorn.Server(config).run(sockets=[listener])


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise PrimevoError(
            f"--port {port}: {error.strerror}; choose another one, or 0 for any that is free"
        ) from None
    return listener
