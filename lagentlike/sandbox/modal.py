"""Slots in sandboxes of Modal, by its SDK."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any

from ..errors import InvalidArgument, MissingExtra, SandboxError, SandboxUnavailable
from .client import RemoteHost
from .docker import server_command
from .host import SlotHost
from .pooled import PooledBackend
from .server import TOKEN_VARIABLE
from .settings import SandboxSettings

__all__ = ["ModalBackend"]

logger = logging.getLogger(__name__)

PORT = 8080


class ModalBackend(PooledBackend):
    """Sandboxes of Modal, each with a sandbox server and its slots, which have users of their own.

    The server is reached through a tunnel of Modal's, encrypted and with a token. The image gets this package and tmux.
    Without `allow_network` Modal lets the sandbox connect to no address. Commands get `modal_env_vars` and what is in
    `modal_secrets` as environment variables.

    Args:
        settings: `SandboxSettings`, or a dict or object with some of their names.

    Raises:
        MissingExtra: Modal's SDK is not installed.
        InvalidArgument: `modal_env_vars` are not `NAME=value`.
    """

    name = "modal"

    def __init__(self, settings: Any = None) -> None:
        settings = SandboxSettings.of(settings)
        super().__init__(
            settings, settings.modal_min_sandboxes, settings.modal_max_sandboxes, settings.modal_idle_timeout
        )
        try:
            import modal
        except ImportError as error:
            raise MissingExtra("modal", "modal") from error
        self._modal = modal
        self._variables = _variables(settings.modal_env_vars)
        self._app: Any = None
        self._image: Any = None

    async def _open(self) -> None:
        modal, settings = self._modal, self.settings
        try:
            self._app = await modal.App.lookup.aio(settings.modal_app_name, create_if_missing=True)
        except Exception as error:
            raise SandboxUnavailable(f"Modal cannot be used: {type(error).__name__}: {error}") from error
        self._image = (
            modal.Image.from_registry(settings.modal_image)
            .apt_install("procps", "tmux")
            .pip_install("aiohttp>=3.10,<4", "orjson>=3.9", "pydantic>=2.7,<3")
            .add_local_python_source("lagentlike")
        )

    async def _launch(self) -> SlotHost:
        modal, settings = self._modal, self.settings
        token = secrets.token_urlsafe(32)
        held = [modal.Secret.from_dict({**self._variables, TOKEN_VARIABLE: token})]
        held += [modal.Secret.from_name(name) for name in _listed(settings.modal_secrets)]
        try:
            sandbox = await modal.Sandbox.create.aio(
                *server_command(settings, settings.modal_slots_per_sandbox),
                *("--host", "0.0.0.0", "--port", str(PORT), "--root", settings.modal_workspace_base),
                *(() if settings.allow_network else ("--network-blocked",)),
                *(("--pass-environment",) if self._variables or settings.modal_secrets else ()),
                app=self._app,
                image=self._image,
                secrets=held,
                timeout=settings.modal_max_lifetime,
                gpu=settings.modal_gpu,
                cpu=settings.modal_cpu,
                memory=settings.modal_memory,
                encrypted_ports=[PORT],
                outbound_cidr_allowlist=None if settings.allow_network else [],
            )
        except Exception as error:
            raise SandboxError(f"Modal started no sandbox: {type(error).__name__}: {error}") from error

        async def end() -> None:
            try:
                await sandbox.terminate.aio()
            except Exception as error:
                raise SandboxError(f"Modal did not end {sandbox.object_id}: {error}") from error

        async def gone() -> str:
            try:
                await sandbox.wait.aio(raise_on_termination=False)
            except modal.exception.SandboxTimeoutError:
                lived = f"it has lived for {settings.modal_max_lifetime} seconds"
                return f"Modal ended the sandbox {sandbox.object_id}: {lived}"
            except Exception as error:  # noqa: BLE001  # it may be there all the same: its server tells
                logger.warning("Modal does not tell of %s: %s: %s", sandbox.object_id, type(error).__name__, error)
                await asyncio.Event().wait()
            return f"Modal ended the sandbox {sandbox.object_id} (exit code {sandbox.returncode})"

        try:
            url = (await sandbox.tunnels.aio())[PORT].url
        except BaseException as error:
            await self._undone(end())
            if not isinstance(error, Exception):
                raise
            raise SandboxError(f"Modal opened no tunnel: {type(error).__name__}: {error}") from error
        host = RemoteHost(sandbox.object_id, token, url=url, gone=gone, end=end)
        try:
            await host.connect(settings.modal_acquire_timeout)
        except BaseException:
            await self._undone(host.close())
            raise
        return host

    def _patience(self) -> float:
        return self.settings.modal_acquire_timeout


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _variables(text: str) -> dict[str, str]:
    variables = {}
    for part in _listed(text):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise InvalidArgument("modal_env_vars", "…", "give NAME=value, several of them joined by commas")
        variables[name.strip()] = value
    return variables
