"""The page itself: its files, and the spans and events that it is fed with."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from ..http_face import HTTPFace, json_response, Put
from ..openai_protocol import BadRequest
from .spans import SpanLog

__all__ = ["OPEN_PATHS", "Page", "page_url"]

_FILES = Path(__file__).parent / "static"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PATHS = {"/": _FILES / "index.html", **{f"/ui/{path.name}": path for path in _FILES.iterdir()}}

OPEN_PATHS = ("/health", *_PATHS)
"""What needs no token: a browser asks for it before it has one, and there is nothing of the agent in it."""


def page_url(address: str, token: str) -> str:
    """Where the page of a server is; the token stands after `#`, which browsers send to no server."""
    return f"{address}/#token={token}"


class Page:
    """The routes of the page that do not ask the agent anything.

    Args:
        face: the server that has them.
        log: the spans that are shown.
    """

    def __init__(self, face: HTTPFace, log: SpanLog) -> None:
        self._face = face
        self._log = log

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add them."""
        for path in _PATHS:
            router.add_get(path, self._file)
        router.add_get("/ui/spans", self._spans)
        router.add_get("/ui/spans/{span_id}", self._span)
        router.add_get("/ui/events", self._events)

    async def _file(self, http: web.Request) -> web.Response:
        path = _PATHS[http.path]
        return web.Response(body=path.read_bytes(), content_type=_KINDS[path.suffix], charset="utf-8", headers=_HEADERS)

    async def _spans(self, http: web.Request) -> web.Response:
        """The spans of a session, and the place in the events from which they go on."""
        return json_response(self._log.told(http.query.get("session")))

    async def _span(self, http: web.Request) -> web.Response:
        span = self._log.whole(http.match_info["span_id"])
        if span is None:
            raise BadRequest("this span is not remembered any more", status=404)
        return json_response(span)

    async def _events(self, http: web.Request) -> web.StreamResponse:
        async def produce(put: Put) -> None:
            await put({"type": "hello"})  # so that the page knows at once that it is heard
            async for event in self._log.feed.since(http.headers.get("Last-Event-ID")):
                await put(event)

        return await self._face.stream(http, produce)
