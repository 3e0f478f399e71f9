"""Answers to a browser, from one database.

Nothing here writes: the database is opened for reading alone, and no address takes anything but
GET and HEAD. Another site whose name is made to lead to this machine is turned away by its Host,
and no page may ask anything of other sites, or be framed by them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from secrets import token_hex
from threading import Lock

from plotly.offline import get_plotlyjs
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.errors import NotFoundError, PrimevoError
from search.report import page
from search.secret import without_passwords
from search.storage.address import name as name_of
from search.storage.address import parse
from search.storage.database import open_read_only
from search.storage.store import Store
from search.ui import marks, pages
from search.ui.marks import Mark

HOSTS = ("127.0.0.1", "localhost")
"""How a browser on this machine, or one at the end of a tunnel, calls the server."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_KEPT = 16
"""Pages that are kept for a browser that asks again before anything has changed."""


class Site:
    """Makes pages from the database at `url`, one at a time: making one keeps a core busy, and the
    campaign may be on the same machine."""

    def __init__(self, url: str) -> None:
        self._url, self._born = url, token_hex(8)
        self._place = name_of(parse(url, create=False))
        self._lock = Lock()
        self._store: Store | None = None
        self._kept: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def campaigns(self, request: Request) -> Response:
        def make(store: Store) -> str:
            return pages.campaigns(store, self._place)

        return self._answer(request, marks.of_all, make)

    def campaign(self, request: Request) -> Response:
        name = request.path_params["name"]
        return self._answer(
            request,
            lambda store: marks.of_campaign(store, name),
            lambda store: pages.campaign(store, name),
        )

    def candidate(self, request: Request) -> Response:
        name, id = request.path_params["name"], request.path_params["id"]
        return self._answer(
            request,
            lambda store: marks.of_candidate(store, name, id),
            lambda store: pages.candidate(store, name, id),
        )

    def found(self, request: Request) -> Response:
        """The address of the candidate whose number was typed in."""
        text = request.query_params.get("id", "")
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise NotFoundError(f"'{text[:20]}' is no number of a candidate")
        return RedirectResponse(pages.candidate_url(request.path_params["name"], int(text)), 303)

    def _answer(
        self,
        request: Request,
        mark: Callable[[Store], Mark],
        make: Callable[[Store], str],
    ) -> Response:
        """The page, or 304 where the browser has it as it is."""
        path = request.url.path
        with self._lock, self._opened() as store:
            tag = self._tag(mark(store))
            headers = {"etag": tag, "cache-control": "no-cache"}
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers=headers)
            if self._kept.get(path, ("", ""))[0] != tag:
                self._kept[path] = tag, make(store)
            self._kept.move_to_end(path)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return HTMLResponse(self._kept[path][1], headers=headers)

    @contextmanager
    def _opened(self) -> Iterator[Store]:
        """The database, which is opened once: compiled statements go with it."""
        if self._store is None:
            self._store = Store(open_read_only(self._url))
        with self._store.understanding():
            yield self._store

    def _tag(self, mark: Mark) -> str:
        """Another one after a restart: the code may have changed."""
        return f'"{blake2b(repr((self._born, mark)).encode(), digest_size=12).hexdigest()}"'


def application(url: str) -> Starlette:
    """The site of the database at a URL, which is opened at the first request."""
    site = Site(url)
    return Starlette(
        routes=[
            Route("/", site.campaigns),
            Route("/assets/{file}", _asset),
            Route("/campaigns/{name:path}/candidates/{id:int}", site.candidate),
            Route("/campaigns/{name:path}/candidate", site.found),
            Route("/campaigns/{name:path}", site.campaign),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False),
        ],
        exception_handlers={
            NotFoundError: _refused(404, "Not found"),
            PrimevoError: _refused(500, "This cannot be shown"),
            HTTPException: _http,
        },
    )


def _asset(request: Request) -> Response:
    """The scripts and styles; Plotly's does not change while the server runs."""
    file = request.path_params["file"]
    if file == "plotly.js":
        kept = {"cache-control": "max-age=3600"}
        return Response(get_plotlyjs(), media_type="text/javascript", headers=kept)
    kinds = {"page.css": "text/css", "page.js": "text/javascript"}
    kinds |= {"live.css": "text/css", "live.js": "text/javascript"}
    if file not in kinds:
        raise HTTPException(404)
    text = page.asset(file) if file.startswith("page") else pages.asset(file)
    return Response(text, media_type=kinds[file], headers={"cache-control": "no-cache"})


def _refused(code: int, title: str) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        return HTMLResponse(pages.failure(title, without_passwords(str(error))), code)

    return answer


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return HTMLResponse(
        pages.failure(error.detail, f"{request.method} {request.url.path}"),
        error.status_code,
        error.headers,
    )


class _Headers:
    """Gives every answer the headers that keep its page to itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, sent)
