"""An agent in a process of its own, behind a server of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from ..child_process import ChildProcess, ProcessOwner
from ..errors import InvalidArgument
from .agent_client import AsyncHTTPAgentClient, HTTPAgentClient

__all__ = ["AsyncHTTPAgentServer", "HTTPAgentServer"]


class HTTPAgentServer(ProcessOwner, HTTPAgentClient):
    """Starts an `AgentServer` in a process of its own, and is a client of it.

    The process ends with `shutdown`, with the `with` block, and with this process, however that ends.

    Args:
        gpu_id: the graphics cards that the process sees, such as `"0"` or `"0,1"`; None for all.
        config: the agent: `dict(type=...)` with classes or dotted paths and values that JSON has, or the dotted path of
            an agent or of what makes one. The classes must be importable, so not be of the program itself.
        host, port: where it listens; port 0 takes a free one.
        timeout: seconds that a turn may take; None for no limit.
        start_timeout: seconds until the server must be there.
        token: the token that clients must send.
        server: further arguments of `AgentServer` that JSON has, such as `store="sessions.db"`.

    Raises:
        InvalidArgument: the config cannot be sent to another process, or the server did not start.
    """

    def __init__(
        self,
        gpu_id: str | int | None = None,
        config: Mapping[str, Any] | str | None = None,
        host: str = "127.0.0.1",
        port: int = 8090,
        timeout: float | None = 600.0,
        *,
        start_timeout: float = 120.0,
        token: str | None = None,
        name: str | None = None,
        description: str | None = None,
        **server: Any,
    ) -> None:
        if not isinstance(config, Mapping | str):
            raise InvalidArgument("config", config, "give dict(type=...) of an agent, or the dotted path of one")
        order = {
            "path": [place or os.getcwd() for place in sys.path],  # noqa: PTH109  # a text, as the others are
            "agent": _sendable(config, "config"),
            "server": _sendable({**server, "host": host, "port": port, "token": token}, "server"),
        }
        environment = os.environ if gpu_id is None else {**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu_id)}
        command = [sys.executable, "-m", "lagentlike.serving.child"]
        self._child = ChildProcess(command, _PATIENCE, stdout=subprocess.PIPE, env=environment, bufsize=0)
        try:
            port = _started(self.process, order, start_timeout)
        except BaseException:
            self.shutdown()
            raise
        super().__init__(host, port, timeout, token=token, name=name, description=description)


class AsyncHTTPAgentServer(HTTPAgentServer, AsyncHTTPAgentClient):
    """Starts an `AgentServer` in a process of its own, and is an async client of it; see `HTTPAgentServer`."""


def _started(process: subprocess.Popen[bytes], order: Mapping[str, Any], timeout: float) -> int:
    """Send the order; the port that the process tells."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it ended, and the line below is missing
        process.stdin.write(json.dumps(order).encode() + b"\n")
    deadline = time.monotonic() + timeout
    line = b""
    os.set_blocking(process.stdout.fileno(), False)
    while not line.endswith(b"\n") and time.monotonic() < deadline:
        piece = process.stdout.read(65536)
        if piece == b"":
            break
        line += piece or b""
        if piece is None:
            time.sleep(0.01)
    if not line.endswith(b"\n"):
        why = "its process ended" if process.poll() is not None else f"it was not there within {timeout:g} s"
        raise InvalidArgument("config", order["agent"], f"the server did not start: {why}")
    told = json.loads(line)
    if "error" in told:
        raise InvalidArgument("config", order["agent"], f"the server did not start: {told['error']}")
    port: int = told["port"]
    return port


_PATIENCE = 45.0  # more than the server's own grace


def _sendable(value: Any, where: str) -> Any:
    """A config as JSON: classes and functions by their dotted paths."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): _sendable(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sendable(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module in (None, "__main__", "builtins") or name is None or not name.isidentifier():
        raise InvalidArgument(
            where, value, "it goes to another process: give dict(type=...) with a class of a module, or plain values"
        )
    return f"{module}.{name}"
