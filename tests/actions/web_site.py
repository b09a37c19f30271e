"""A site on loopback that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

RECORDED = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    body: bytes = b""
    kind: str | None = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] | None = None


Route = Answer | Callable[[Asked], Answer | Iterator[bytes]]


class Site:
    """Routes by path; a function that yields sends its pieces as they come, without a length.

    Args:
        routes: by path.
        host: an address of loopback: all of 127.0.0.0/8 are.
        tls: for https.
    """

    def __init__(
        self, routes: Mapping[str, Route] | None = None, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self.routes: dict[str, Route] = dict(routes or {})
        self.asked: list[Asked] = []
        self.connections = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                site.connections += 1

            def log_message(self, *args: Any) -> None:
                """Nothing."""

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):
                    site._answer(self)

            def do_POST(self) -> None:
                self.do_GET()

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                """A client that goes away is none."""

        self._server = Server((host, 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length", 0))
        asked = Asked(
            handler.command, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), dict(handler.headers),
            handler.rfile.read(length),
        )  # fmt: skip
        self.asked.append(asked)
        route = self.routes.get(parts.path, Answer(b"not here", "text/plain", 404))
        answer = route(asked) if callable(route) else route
        if not isinstance(answer, Answer):
            handler.send_response(200)
            handler.send_header("Content-Type", "text/plain")
            handler.send_header("Connection", "close")
            handler.end_headers()
            for piece in answer:
                handler.wfile.write(piece)
                handler.wfile.flush()
            return
        handler.send_response(answer.status)
        headers = {"Content-Length": str(len(answer.body)), **(answer.headers or {})}
        if answer.kind is not None:
            headers["Content-Type"] = answer.kind
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer.body)


def recorded(name: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer from the folder `recorded`."""
    kinds = {".json": "application/json", ".html": "text/html; charset=utf-8", ".xml": "application/atom+xml"}
    path = RECORDED / name
    return Answer(path.read_bytes(), kinds[path.suffix], status, headers)


def redirect(target: str, status: int = 302) -> Answer:
    return Answer(b"", None, status, {"Location": target})
