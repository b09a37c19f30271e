"""Slots over HTTP, for those who have the token: in a container, or beside bubblewrap."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from ..errors import InvalidArgument, SandboxUnavailable
from .base import MAX_ARTIFACT
from .bubblewrap import Bwrap
from .host import HostCall
from .http import checked_token, guarded, json_reply, Listener, MAX_BODY, read_json
from .isolation import Isolation
from .limits import Limits, MIB
from .machine import MachineHost
from .slot_user import SlotUser
from .tools import SANDBOX_TOOLS
from .unsafe_local import UnsafeLocal

__all__ = ["SandboxServer", "main"]

logger = logging.getLogger(__name__)

MAX_SECONDS = 3600.0
"""Longest time that a call may ask for."""

MAX_CALLS = 1000
"""Most calls of one batch."""


class SandboxServer(Listener):
    """Serves the slots of a machine, or of the container that it runs in.

    Routes, all but `/health` for those who send the token as `Authorization: Bearer …`:

    - `GET /health`: whether it is there; `GET /slots`: the slots and their workspaces.
    - `POST /execute` with `{"slot", "tool", "arguments", "timeout_s"}`: run a tool.
    - `POST /batch` with `{"calls": [{"slot", "tool", "arguments"}, …], "timeout_s"}`: run tools side by side; the
      results in order as `{"results": […]}`, or with `Accept: application/x-ndjson` a line `{"index", "result"}` for
      each as soon as it is there.
    - `POST /reset` with `{"slot"}`: end what runs there and empty it; tells the clean slot's name and workspace.
    - `POST /artifacts/read` with `{"slot", "path", "max_bytes"}`, `/artifacts/list` with `{"slot", "path",
      "recursive"}`, `/artifacts/archive` with `{"slot", "path", "max_bytes"}`.

    Args:
        host: the slots; they end with the server.
        token: what clients must send, at least 16 characters.
        socket: the path of a Unix socket to listen on, for its owner alone; none if `port` is given.
        address: where it listens, with `port`.
        port: the port; 0 takes a free one.

    Raises:
        InvalidArgument: the token keeps nobody out, or it is to listen in no place or in two.
    """

    def __init__(
        self,
        host: MachineHost,
        token: str,
        *,
        socket: str | os.PathLike[str] | None = None,
        address: str = "127.0.0.1",
        port: int | None = None,
    ) -> None:
        if (socket is None) == (port is None):
            raise InvalidArgument("socket, port", (socket, port), "give one of them")
        super().__init__(address, port, None if socket is None else Path(socket))
        self.host = host
        self._last_seen = time.monotonic()
        self._busy = 0
        self._token = checked_token(token)

    @property
    def idle_seconds(self) -> float:
        """For how long nobody with the token has asked for anything."""
        return 0.0 if self._busy else time.monotonic() - self._last_seen

    def app(self) -> web.Application:
        app = web.Application(
            client_max_size=MAX_BODY, middlewares=[guarded(self._token, frozenset({"/health"})), self._noted]
        )
        app.router.add_get("/health", self._health)
        app.router.add_get("/slots", self._slots)
        app.router.add_post("/execute", self._execute)
        app.router.add_post("/batch", self._batch)
        app.router.add_post("/reset", self._reset)
        app.router.add_post("/artifacts/{action:read|list|archive}", self._artifacts)
        return app

    async def stop(self) -> None:
        """Close, and end all slots."""
        await super().stop()
        await self.host.close()

    @web.middleware
    async def _noted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path == "/health":
            return await handler(request)  # type: ignore[no-any-return]
        self._busy += 1
        try:
            return await handler(request)  # type: ignore[no-any-return]
        finally:
            self._busy -= 1
            self._last_seen = time.monotonic()

    async def _health(self, request: web.Request) -> web.Response:
        return json_reply({"status": "ok"})

    async def _slots(self, request: web.Request) -> web.Response:
        return json_reply({"slots": self.host.slots()})

    async def _execute(self, request: web.Request) -> web.Response:
        body = await read_json(request, "slot", "tool", "arguments", "timeout_s")
        seconds = _seconds(body.pop("timeout_s", None))
        result = await self.host.run(*self._call(body), seconds)
        return json_reply(result.plain())

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        body = await read_json(request, "calls", "timeout_s")
        given, seconds = body.get("calls"), _seconds(body.get("timeout_s"))
        if not isinstance(given, list) or len(given) > MAX_CALLS:
            raise InvalidArgument("calls", "…", f"give a list of at most {MAX_CALLS} calls")
        stream = self.host.run_batch([self._call(call) for call in given], seconds)
        async with aclosing(stream) as arriving:  # type: ignore[type-var]
            if request.headers.get("Accept") != NDJSON:
                results = {index: result.plain() async for index, result in arriving}
                return json_reply({"results": [results[index] for index in range(len(given))]})
            response = web.StreamResponse(headers={"Content-Type": NDJSON})
            await response.prepare(request)
            async for index, result in arriving:
                await response.write(orjson.dumps({"index": index, "result": result.plain()}) + b"\n")
            await response.write_eof()
            return response

    async def _reset(self, request: web.Request) -> web.Response:
        body = await read_json(request, "slot")
        name = await self.host.reset(self._slot(body.get("slot")))
        return json_reply({"slot": name, "workspace": self.host.slots()[name]})

    async def _artifacts(self, request: web.Request) -> web.Response:
        action = request.match_info["action"]
        body = await read_json(request, "slot", "path", *_ARTIFACT_FIELDS[action])
        slot = self._slot(body.pop("slot", None))
        path = body.get("path")
        if not isinstance(path, str) or not 0 < len(path) <= 4096:
            raise InvalidArgument("path", path, "give a path in the workspace")
        for name, kind in _ARTIFACT_FIELDS[action].items():
            if type(body.get(name)) is not kind:
                raise InvalidArgument(name, body.get(name), f"give a value of type {kind.__name__}")
        if not 0 <= body.get("max_bytes", 0) <= MAX_ARTIFACT:
            raise InvalidArgument("max_bytes", body["max_bytes"], f"give 0 to {MAX_ARTIFACT}")
        reply = await self.host.ask(slot, f"artifacts/{action}", body)
        return json_reply(reply)

    def _call(self, given: Any) -> HostCall:
        """A call that was sent, checked as if no client had done so."""
        if not isinstance(given, Mapping) or not set(given) <= {"slot", "tool", "arguments"}:
            raise InvalidArgument("calls", given, "a call has slot, tool and arguments")
        tool, arguments = given.get("tool"), given.get("arguments", {})
        if not isinstance(tool, str) or tool not in SANDBOX_TOOLS:
            raise InvalidArgument("tool", tool, f"the tools are {', '.join(SANDBOX_TOOLS)}")
        if not isinstance(arguments, Mapping):
            raise InvalidArgument("arguments", arguments, "give an object")
        return HostCall(self._slot(given.get("slot")), tool, SANDBOX_TOOLS[tool].validate(arguments))

    def _slot(self, name: Any) -> str:
        if not isinstance(name, str) or name not in self.host.slots():
            raise InvalidArgument("slot", name, "there is no such slot: GET /slots")
        return name


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve slots until nobody wants them any more: `python -m lagentlike.sandbox.server`.

    The token is read from the file `--token-file`, which is removed then, or from `LAGENTLIKE_SANDBOX_TOKEN`.
    """
    parser = argparse.ArgumentParser(prog="lagentlike.sandbox.server", description="Serve sandbox slots over HTTP.")
    parser.add_argument("--slots", type=int, default=10, help="how many slots there are")
    parser.add_argument("--socket", help="path of a Unix socket to listen on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on, with --port")
    parser.add_argument("--port", type=int, help="port to listen on")
    parser.add_argument("--token-file", type=Path, help="file with the token; it is removed")
    parser.add_argument("--isolation", choices=("auto", *_ISOLATIONS), default="auto", help="what separates slots")
    parser.add_argument("--network", action="store_true", help="let slots use the network")
    parser.add_argument("--network-blocked", action="store_true", help="the container's network leads nowhere")
    parser.add_argument("--root", type=Path, help="directory for the workspaces")
    parser.add_argument("--pass-environment", action="store_true", help="give slots the container's variables")
    parser.add_argument("--memory-mb", type=int, default=1024, help="memory of a slot")
    parser.add_argument("--processes", type=int, default=64, help="processes of a slot")
    parser.add_argument("--output", type=int, default=32_768, help="bytes of output of a command that are kept")
    parser.add_argument("--orphan-seconds", type=float, default=120, help="end when nobody asks for so long")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    if os.getpid() == 1:
        _be_init()
    asyncio.run(_serve(options))


def _be_init() -> None:
    """Go on in a child; the first process of a container reaps what commands leave behind, which nobody else does."""
    child = os.fork()
    if not child:
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(child, number))
    ended = status = 0
    while ended != child:
        ended, status = os.wait()
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


async def _serve(options: argparse.Namespace) -> None:
    token = os.environ.pop(TOKEN_VARIABLE, "")
    if options.token_file is not None:
        token = options.token_file.read_text().strip()
        options.token_file.unlink()
    limits = Limits(
        memory=options.memory_mb * MIB,
        processes=options.processes,
        output=options.output,
        network=options.network,
    )
    isolation = _isolation(options.isolation, options.network or options.network_blocked)
    passed = {name: value for name, value in os.environ.items() if not name.startswith("MODAL_")}
    passed = passed if options.pass_environment else {}
    host = MachineHost(isolation, options.slots, limits, root=options.root, env=passed)
    server = SandboxServer(host, token, socket=options.socket, address=options.host, port=options.port)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with server:
        logger.info("serving %d slots, held back by %s", options.slots, host.isolation.name)
        while not stopped.is_set() and server.idle_seconds < options.orphan_seconds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), min(1.0, options.orphan_seconds))


def _isolation(name: str, may_share_network: bool) -> Isolation:
    """What separates slots from each other: bubblewrap if it works here, else a user for each.

    Raises:
        SandboxUnavailable: neither works, or slots would have a network that they shall not have.
    """
    if name != "auto":
        isolation: Isolation = _ISOLATIONS[name]()
        isolation.check()
    else:
        isolation = Bwrap()
        try:
            isolation.check()
        except SandboxUnavailable as error:
            logger.info("bubblewrap does not work here (%s): slots get users of their own", error)
            isolation = SlotUser()
            isolation.check()
    if not may_share_network and isolation.name != "bwrap" and _has_network():
        raise SandboxUnavailable(
            "slots shall have no network, and without bubblewrap they share that of the container: start it without "
            "one (a Unix socket is enough), let it be privileged so that bubblewrap works, or allow the network"
        )
    return isolation


def _has_network() -> bool:
    return any(name != "lo" for _, name in socket.if_nameindex())


TOKEN_VARIABLE = "LAGENTLIKE_SANDBOX_TOKEN"  # noqa: S105  # the name of it
NDJSON = "application/x-ndjson"
_ISOLATIONS: dict[str, type[Isolation]] = {"bwrap": Bwrap, "user": SlotUser, "unsafe_local": UnsafeLocal}

_ARTIFACT_FIELDS: dict[str, dict[str, type]] = {
    "read": {"max_bytes": int},
    "list": {"recursive": bool},
    "archive": {"max_bytes": int},
}


def _seconds(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= MAX_SECONDS:
        raise InvalidArgument("timeout_s", given, f"give seconds, at most {MAX_SECONDS:g}")
    return float(given)


if __name__ == "__main__":
    main()
