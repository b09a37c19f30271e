"""Models behind LMDeploy's API server: one that runs somewhere, or one that is started here."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import weakref
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, IO, TypeVar

from ..child_process import ChildProcess, ProcessOwner
from ..errors import ConnectFailed, InvalidArgument, MissingExtra, ServerError
from .openai import _ChatCompletions, AsyncGPTAPI, GPTAPI
from .transport import Request

__all__ = ["AsyncLMDeployClient", "AsyncLMDeployServer", "LMDeployClient", "LMDeployServer"]

R = TypeVar("R")
T = TypeVar("T")


class _Client(_ChatCompletions):
    """What both colours share: where the server is."""

    def __init__(self, url: str, model_name: str, key: Any = None, **options: Any) -> None:
        super().__init__(model_name, key=key, api_base=url, **options)


class LMDeployClient(_Client, GPTAPI):
    """A model behind an LMDeploy API server that runs already.

    Args:
        url: the server's address.
        model_name: the model's name there.
        key: its API key, where it wants one.
        **options: as for `GPTAPI`.

    >>> LMDeployClient("http://127.0.0.1:23333", "internlm2")
    LMDeployClient('internlm2')
    """


class AsyncLMDeployClient(_Client, AsyncGPTAPI):
    """The async form of `LMDeployClient`."""


class _Server(ProcessOwner, _Client):
    """What both colours share: the process, started by the constructor and watched by every call."""

    _log: IO[bytes] | None = None

    def __init__(
        self,
        path: str,
        model_name: str | None = None,
        server_name: str = "127.0.0.1",
        server_port: int = 0,
        tp: int = 1,
        log_level: str = "WARNING",
        serve_cfg: Mapping[str, Any] | None = None,
        *,
        start_timeout: float = 600.0,
        program: str = "lmdeploy",
        **options: Any,
    ) -> None:
        port = server_port or _free_port(server_name)
        name = model_name or path
        settings = {"server_name": server_name, "server_port": port, "model_name": name, "tp": tp}
        settings.update({"log_level": log_level, **(serve_cfg or {})})
        self._command = [program, "serve", "api_server", path, *_flags(settings)]
        self._start_timeout = start_timeout
        reached = "127.0.0.1" if server_name in ("0.0.0.0", "") else server_name
        super().__init__(f"http://{reached}:{port}", name, **options)
        self.start()

    def start(self) -> None:
        """Start the server again after it died; does nothing where it runs.

        Raises:
            MissingExtra: LMDeploy is not installed.
            ServerError: the server ended, or was not there in time; the end of its log is in the message.
        """
        if self.alive:
            return
        self.shutdown()
        if self._log is not None:
            self._log.close()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # as long as this object, or until it is started again
        weakref.finalize(self, self._log.close)
        command = [sys.executable, "-I", _WATCH, *self._command]
        self._child = ChildProcess(command, _PATIENCE, stdout=self._log, stderr=subprocess.STDOUT)
        try:
            self._await_health()
        except BaseException:
            self.shutdown()
            raise

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._child is not None and self._child.alive

    @property
    def log(self) -> str:
        """The end of what the server wrote."""
        assert self._log is not None, "the constructor opens it"
        size = self._log.seek(0, 2)
        self._log.seek(max(0, size - _LOG_TAIL))
        return self._log.read().decode("utf-8", "replace").strip()

    def _await_health(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        health = str(self.url.with_path("/health"))
        while time.monotonic() < deadline:
            if not self.alive:
                if self.process.returncode == _NO_PROGRAM and self._command[0] == "lmdeploy":
                    raise MissingExtra("lmdeploy", "lmdeploy")
                raise self._died()
            with contextlib.suppress(OSError), opener.open(health, timeout=2):
                return
            time.sleep(_BETWEEN_LOOKS)
        raise ServerError(f"LMDeploy's server was not there within {self._start_timeout:g} s; its log ends: {self.log}")

    def _died(self) -> ServerError:
        return ServerError(
            f"LMDeploy's server ended with {self.process.returncode}: call start() to start it again; "
            f"its log ends: {self.log}"
        )

    async def _ask(self, body: bytes, send: Callable[[Request, R], Coroutine[Any, Any, T]], read: R) -> T:
        if not self.alive:
            raise self._died()
        try:
            return await super()._ask(body, send, read)
        except ConnectFailed as error:
            if self.alive:
                raise
            raise self._died() from error


class LMDeployServer(_Server, LMDeployClient):
    """Starts LMDeploy's API server in a process of its own, and is a client of it; the extra `lmdeploy` brings it.

    The server ends with `shutdown`, with the `with` block, and with this process, however that ends. Where it dies,
    calls raise `ServerError` with the end of its log until `start` is called.

    Args:
        path: a Hugging Face name or directory.
        model_name: what the model is called; None for `path`.
        server_name, server_port: where it listens; port 0 takes a free one.
        tp: GPUs to spread the model over.
        log_level: how much the server writes.
        serve_cfg: further options of `lmdeploy serve api_server`, with underscores: `dict(backend="pytorch",
            eager_mode=True)`.
        start_timeout: seconds until it must be there.
        program: the command, where it is not on the path.
        **options: as for `GPTAPI`.

    Raises:
        MissingExtra: LMDeploy is not installed.
        ServerError: the server did not start; the end of its log is in the message.
    """


class AsyncLMDeployServer(_Server, AsyncLMDeployClient):
    """The async form of `LMDeployServer`; only its calls are awaited, starting blocks."""


_WATCH = str(Path(__file__).with_name("server_watch.py"))
_NO_PROGRAM = 127
_LOG_TAIL = 4096
_BETWEEN_LOOKS = 0.1
_PATIENCE = 10.0  # more than the watcher's own grace


def _flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as options of the command line; True is the bare option, None and False are left out."""
    flags = []
    for name, value in settings.items():
        if value is None or value is False:
            continue
        flags.append(f"--{name.replace('_', '-')}")
        if value is not True:
            flags += [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
    return flags


def _free_port(host: str) -> int:
    try:
        with socket.create_server((host, 0)) as taken:
            port: int = taken.getsockname()[1]
            return port
    except OSError as error:
        raise InvalidArgument("server_name", host, f"this machine cannot listen there ({error})") from None
