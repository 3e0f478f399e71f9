"""The site behind a real server, in a thread of the tests."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from urllib.parse import urlsplit

import uvicorn

from search.ui.site import application


@dataclass(frozen=True)
class Answer:
    code: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def serving(url: str) -> Iterator[str]:
    """The address of a server of the database at `url`; it has ended when the block has."""
    config = uvicorn.Config(application(url), port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)


def get(address: str, method: str = "GET", **headers: str) -> Answer:
    """What a request is answered; headers are given with `_` for `-`."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(str(parts.hostname), int(parts.port or 80), timeout=60)
    try:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, headers=named)
        answer = connection.getresponse()
        found = {key.lower(): value for key, value in answer.getheaders()}
        return Answer(answer.status, answer.read().decode(), found)
    finally:
        connection.close()
