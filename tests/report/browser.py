"""Chromium without a window, driven over its debugging pipe: no driver and no package is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars",
)  # fmt: skip
TIMEOUT_S = 120.0


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Page:
    """One page. `requests` are the addresses that it asked for besides its own, `errors` what it
    threw or wrote to the console."""

    def __init__(self, browser: Browser, target: str) -> None:
        self._browser = browser
        answer = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def emulate(self, width: int, height: int, dark: bool) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: Path) -> None:
        """Returns when the page's scripts have run."""
        self.visit(path.as_uri())

    def visit(self, url: str) -> None:
        """The same for the page at an address."""
        loaded = [each for each in self._browser.events if each["method"] == "Page.loadEventFired"]
        for each in loaded:
            self._browser.events.remove(each)
        self._call("Page.navigate", url=url)
        self._browser.wait_for("Page.loadEventFired")
        self.value("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 300)))")

    def value(self, script: str) -> Any:
        """What a JavaScript expression gives."""
        answer = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        answer = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    @property
    def requests(self) -> list[str]:
        sent = self._events("Network.requestWillBeSent")
        urls = [event["request"]["url"] for event in sent if event.get("type") != "Document"]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]

    @property
    def errors(self) -> list[str]:
        thrown = [event["exceptionDetails"] for event in self._events("Runtime.exceptionThrown")]
        logged = [event["entry"] for event in self._events("Log.entryAdded")]
        said = [e for e in self._events("Runtime.consoleAPICalled") if e["type"] != "log"]
        return [json.dumps(each) for each in (*thrown, *logged, *said)]

    def _events(self, method: str) -> list[dict[str, Any]]:
        return [each["params"] for each in self._browser.events if each["method"] == method]

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)


class Browser:
    """A Chromium with a profile of its own in `folder`, and further flags."""

    def __init__(self, executable: str, folder: Path, *flags: str) -> None:
        read_there, self._write = os.pipe()
        self._read, write_there = os.pipe()
        command = [executable, *FLAGS, *flags, "--remote-debugging-pipe"]
        command.append(f"--user-data-dir={folder}")
        # Chromium reads commands from descriptor 3 and answers on 4; the shell puts them there.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{read_there} 4>&{write_there}', "chromium", *command],
            pass_fds=(read_there, write_there),
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._number, self._rest = 0, b""
        self._answers: dict[int, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._read)
        os.close(self._write)

    @contextmanager
    def page(self) -> Iterator[Page]:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.events.clear()
        yield Page(self, target)
        self.call("Target.closeTarget", targetId=target)

    def call(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        number = self._number
        self._read_until(lambda: number in self._answers, method)
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def wait_for(self, method: str) -> None:
        self._read_until(lambda: any(each["method"] == method for each in self.events), method)

    def _read_until(self, done: Any, what: str) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not done():
            left = end - time.monotonic()
            assert left > 0 and select.select([self._read], [], [], left)[0], f"no {what}"
            chunk = os.read(self._read, 1 << 16)
            assert chunk, f"Chromium ended before {what}"
            *messages, self._rest = (self._rest + chunk).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers[message["id"]] = message
                else:
                    self.events.append(message)
