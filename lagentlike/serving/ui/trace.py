"""The page over a trace that was written to a file."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from aiohttp import web

from ...tracing import read_trace
from ..http_face import HTTPFace, json_response, Limits
from .feed import Feed
from .page import OPEN_PATHS, Page, page_url
from .spans import SpanLog

__all__ = ["TraceViewer"]


class TraceViewer(HTTPFace):
    """Serves the page over what a `JSONLTracer` wrote: sessions, turns and timings, and what was said if that is there.

    Args:
        path: the file.
        port: port to listen on, on this machine alone; 0 takes a free one.
        token: what the page must send; made up by default.
        max_spans: of a longer trace, only so many of the last spans are shown, and the page says so.
        limits: how much the server takes, and how long it waits.

    Raises:
        InvalidArgument: the file cannot be read, or is no trace.
    """

    open_paths = OPEN_PATHS

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        port: int = 0,
        token: str | None = None,
        max_spans: int = 20_000,
        limits: Limits | None = None,
    ) -> None:
        self._token = token or secrets.token_urlsafe(24)
        super().__init__(host="127.0.0.1", port=port, token=self._token, max_concurrency=16, limits=limits)
        self.name = Path(path).name
        self._log = SpanLog(Feed(), max_spans)
        read = read_trace(path)
        spans = read[-max_spans:]
        self._left_out = len(read) - len(spans)
        for span in sorted(spans, key=lambda span: (span["start"], -(span["seconds"] or 0.0))):  # what has parts first
            self._log.begin({name: value for name, value in span.items() if name != "content"}, span.get("content", {}))

    @property
    def page_url(self) -> str:
        """Where the page is."""
        return page_url(self.address, self._token)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        Page(self, self._log).add_routes(router)
        router.add_get("/ui/agent", self._show_agent)
        router.add_get("/ui/sessions", self._show_sessions)

    async def stop(self) -> None:
        self._log.feed.close()
        await super().stop()

    async def _show_agent(self, http: web.Request) -> web.Response:
        return json_response({"name": self.name, "live": False, "left_out": self._left_out, "units": self._units()})

    async def _show_sessions(self, http: web.Request) -> web.Response:
        about = {"own": False, "running": False, "origin": None}
        listed = [{"key": key, "title": self._log.beginning(key), **about} for key in self._log.sessions()]
        return json_response({"sessions": listed})

    def _units(self) -> list[dict[str, Any]]:
        """The tree, as far as spans tell of it."""
        rows: dict[str, dict[str, Any]] = {}
        spans = {span["span_id"]: span for span in self._log.told(None)["spans"]}
        for span in spans.values():
            above = spans.get(span["parent_id"], {})
            if span["kind"] == "turn":
                rows.setdefault(span["path"], _row(span["path"], span["name"], span["unit"]))
            elif span["kind"] == "request" and above.get("kind") == "turn":
                rows[above["path"]]["model"] = span["model"]
            elif span["kind"] == "tool" and above.get("kind") == "turn":
                path = f"{above['path']}.{span['name']}".removeprefix(".")
                rows.setdefault(path, {**_row(path, span["name"], "tool"), "is_tool": True})
        return list(rows.values())


def _row(path: str, name: str, unit: str) -> dict[str, Any]:
    return {"path": path, "name": name, "unit": unit, "colour": "", "model": None, "is_tool": False, "memory": False}
