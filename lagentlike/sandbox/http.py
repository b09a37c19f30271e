"""What the servers and clients of this package share: listening, tokens, JSON bodies with caps, errors as bodies."""

from __future__ import annotations

import errno
import hmac
import ipaddress
import logging
import socket
import stat
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
from aiohttp import web

from ..errors import ArtifactError, InvalidArgument, LagentlikeError, SandboxError, SlotLost

__all__ = [
    "Listener",
    "bearer",
    "checked_port",
    "checked_token",
    "guarded",
    "json_reply",
    "only_this_machine",
    "read_body",
    "read_json",
]

logger = logging.getLogger(__name__)

MAX_BODY: Final = 4 * 1024 * 1024
"""Most bytes of a request."""

MAX_REPLY: Final = 32 * 1024 * 1024
"""Most bytes of a reply, and of a line of one."""


class Listener(ABC):
    """A server in this event loop; `async with server:` starts and stops it.

    Args:
        address: where it listens, with `port`.
        port: the port; 0 takes a free one, which `url` then tells.
        socket: the path of a Unix socket to listen on instead, for its owner alone.

    Raises:
        InvalidArgument: the port is none.
    """

    def __init__(self, address: str, port: int | None, socket: Path | None = None) -> None:
        self.address = address
        self.port = None if port is None else checked_port(port)
        self.socket = socket
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens, if that is a port."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"

    @abstractmethod
    def app(self) -> web.Application:
        """The application, to be mounted or served by other means."""

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            InvalidArgument: the port or the path is taken, or the address is none of this machine.
        """
        runner = web.AppRunner(self.app(), handler_cancellation=True, access_log=None, shutdown_timeout=5.0)
        await runner.setup()
        try:
            if self.socket is not None:
                if self.socket.is_socket() and not _is_served(self.socket):  # of a server that is gone
                    self.socket.unlink()
                await web.SockSite(runner, _bound(self.socket)).start()
            else:
                await web.TCPSite(runner, self.address, self.port).start()
        except OSError as error:
            await runner.cleanup()
            place = str(self.socket) if self.socket is not None else f"{self.address}:{self.port}"
            raise InvalidArgument("socket, port", place, f"cannot listen there: {error.strerror or error}") from error
        self._runner = runner
        if self.socket is None:
            self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Close."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            if self.socket is not None:
                self.socket.unlink(missing_ok=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _bound(path: Path) -> socket.socket:
    """A Unix socket that nobody else can connect to, from the first moment on."""
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(path))
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    except OSError:
        bound.close()
        raise
    return bound


def _is_served(path: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) in (0, errno.EAGAIN)  # or so many wait already that it lets nobody in


def checked_port(port: Any) -> int:
    """A port to listen on, if it is one; 0 stands for any that is free.

    Raises:
        InvalidArgument: it is none.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise InvalidArgument("port", port, "give a number from 0 (any free port) to 65535")
    return port


def checked_token(token: Any) -> str:
    """A bearer token, if it is one that keeps anybody out.

    Raises:
        InvalidArgument: it is no text, or shorter than 16 characters.
    """
    if not isinstance(token, str) or len(token) < 16 or not token.isascii() or not token.isprintable():
        raise InvalidArgument("token", "…", "give at least 16 ASCII characters, such as secrets.token_urlsafe() makes")
    return token


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


def guarded(token: str, open_paths: frozenset[str] = frozenset()) -> Any:
    """Middleware that lets in who has the token, and turns every error into a JSON body `{"error": text}`."""
    expected = token.encode()

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        known = hmac.compare_digest(given.strip().encode("utf-8", "replace"), expected)
        if request.path not in open_paths and not (known and scheme.lower() == "bearer"):
            return json_reply({"error": "send the token as 'Authorization: Bearer …'"}, 401)
        try:
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return json_reply({"error": f"the body is larger than {MAX_BODY} bytes: send less"}, 413)
        except web.RequestPayloadError:
            return json_reply({"error": "the body cannot be unpacked, or broke off"}, 400)
        except web.HTTPException as error:
            return json_reply({"error": f"{request.method} {request.path}: {error.reason}"}, error.status)
        except ConnectionError:  # the client is gone, so there is nobody to tell
            raise
        except LagentlikeError as error:
            return json_reply({"error": str(error), "kind": _kind(error)}, _STATUS.get(type(error), 400))
        except Exception as error:
            logger.exception("%s %s failed", request.method, request.path)
            return json_reply({"error": f"the server failed: {type(error).__name__}"}, 500)

    return middleware


_STATUS = {SlotLost: 410, ArtifactError: 404, InvalidArgument: 400, SandboxError: 503}


def _kind(error: LagentlikeError) -> str:
    return type(error).__name__


def json_reply(value: Any, status: int = 200) -> web.Response:
    """A value as the body of a reply."""
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


async def read_json(request: web.Request, *names: str) -> dict[str, Any]:
    """The body of a request, an object that has no other names than these.

    Raises:
        InvalidArgument: it is none.
    """
    body = await request.read()
    try:
        value = orjson.loads(body or b"{}")
    except ValueError as error:
        raise InvalidArgument("body", "…", f"it is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument("body", value, "send a JSON object")
    unknown = sorted(set(value) - set(names))
    if unknown:
        raise InvalidArgument("body", unknown, f"the fields are {', '.join(names)}")
    return value


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """The body of a reply.

    Raises:
        ValueError: it is larger than `MAX_REPLY`.
    """
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_REPLY:
            raise ValueError(f"the reply is larger than {MAX_REPLY} bytes")
    return bytes(body)


def only_this_machine(host: str) -> bool:
    """Whether nobody on another machine can reach what listens at an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
