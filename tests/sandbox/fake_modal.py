"""Modal's SDK over plain processes; each call must fit the real SDK's signature, in `modal_signatures.json`."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import socket
import sys
import types
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .places import server_environment

SIGNATURES = json.loads(Path(__file__).with_name("modal_signatures.json").read_text())["signatures"]


def fake_modal(folder: Path) -> Any:
    """A module in the place of `modal`; `module.sandboxes` are those that were made."""
    module: Any = types.ModuleType("modal")
    module.sandboxes = []
    module.exception = types.SimpleNamespace(SandboxTimeoutError=type("SandboxTimeoutError", (TimeoutError,), {}))

    class App:
        lookup = _Both("App.lookup", lambda name, **options: ("app", name))

    class Secret:
        from_dict = staticmethod(_checked("Secret.from_dict", lambda variables: variables))
        from_name = staticmethod(_checked("Secret.from_name", lambda name: {f"SECRET_{name.upper()}": "of " + name}))

    class Image:
        steps: list[str]

        @staticmethod
        def from_registry(tag: str) -> Image:
            _fits("Image.from_registry", (tag,), {})
            image = Image()
            image.steps = [tag]
            return image

        def __getattr__(self, name: str) -> Any:
            def step(*arguments: str) -> Image:
                _fits(f"Image.{name}", (self, *arguments), {})
                self.steps.append(f"{name} {' '.join(arguments)}")
                return self

            return step

    class Sandbox:
        def __init__(self, process: asyncio.subprocess.Process, port: int, options: dict[str, Any]) -> None:
            self.object_id = f"sb-{uuid.uuid4().hex[:8]}"
            self.options = options
            self.process = process
            self.port = port
            self.expired = False
            self.tunnels = _Both("Sandbox.tunnels", self._tunnels, self)
            self.wait = _Both("Sandbox.wait", self._wait, self)
            self.terminate = _Both("Sandbox.terminate", self._terminate, self)

        @property
        def returncode(self) -> int | None:
            return self.process.returncode

        def expire(self) -> None:
            """What Modal does when the sandbox has lived for its `timeout`."""
            self.expired = True
            self.kill()

        def kill(self) -> None:
            if self.process.returncode is None:
                os.killpg(self.process.pid, signal.SIGKILL)

        async def _tunnels(self) -> dict[int, Any]:
            return {self.options["encrypted_ports"][0]: types.SimpleNamespace(url=f"http://127.0.0.1:{self.port}")}

        async def _wait(self, raise_on_termination: bool) -> None:
            assert raise_on_termination is False
            await self.process.wait()
            if self.expired:
                raise module.exception.SandboxTimeoutError

        async def _terminate(self) -> None:
            self.kill()
            await self.process.wait()

    async def create(*command: str, **options: Any) -> Sandbox:
        program, *arguments = command
        assert program == "python3"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (inside,) = options["encrypted_ports"]
        words = {str(inside): str(port), "0.0.0.0": "127.0.0.1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(words.get(word, word) for word in arguments),
            env=server_environment(dict(pair for secret in options["secrets"] for pair in secret.items()), folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        sandbox = Sandbox(process, port, options)
        module.sandboxes.append(sandbox)
        return sandbox

    Sandbox.create = _Both("Sandbox.create", create)  # type: ignore[attr-defined]
    module.App, module.Image, module.Sandbox, module.Secret = App, Image, Sandbox, Secret
    return module


class _Both:
    """A function of the SDK, of which only the awaited form `.aio` is used."""

    def __init__(self, name: str, function: Callable[..., Any], *bound: Any) -> None:
        self._name = name
        self._function = function
        self._bound = bound

    async def aio(self, *arguments: Any, **options: Any) -> Any:
        _fits(self._name, (*self._bound, *arguments), options)
        result = self._function(*arguments, **options)
        return await result if inspect.isawaitable(result) else result


def _checked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        _fits(name, arguments, options)
        return function(*arguments, **options)

    return call


def _fits(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Raise TypeError as the real function would for these arguments."""
    parameters = [
        inspect.Parameter(
            one, getattr(inspect.Parameter, kind), default=None if has_default else inspect.Parameter.empty
        )
        for one, kind, has_default in SIGNATURES[name]
    ]
    inspect.Signature(parameters).bind(*arguments, **options)
