"""Slots in containers of Docker or Podman, by their command line."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from contextlib import suppress
from typing import Any

from ..errors import SandboxError, SandboxUnavailable
from .client import RemoteHost
from .folders import OwnedFolder
from .host import SlotHost
from .pooled import PooledBackend
from .settings import SandboxSettings

__all__ = ["DockerBackend", "PodmanBackend"]

START_SECONDS = 120.0
"""How long a container may take until its server answers; its image may have to be fetched."""

COMMAND_SECONDS = 120.0
"""How long one command of Docker may take."""

_RUN_DIRECTORY = "/run/lagentlike"
_LABEL = "lagentlike.job"


class DockerBackend(PooledBackend):
    """Containers of Docker, each with a sandbox server and its slots.

    The server listens on a Unix socket in a directory that is mounted for it alone, so that a container needs no
    network and has none unless `allow_network` is set. The image needs Python with this package, bash and tmux; with
    bubblewrap in it and `privileged`, each slot is in bubblewrap too, and otherwise has a user of its own.

    Args:
        settings: `SandboxSettings`, or a dict or object with some of their names.
    """

    name = "docker"
    program = "docker"

    def __init__(self, settings: Any = None) -> None:
        settings = SandboxSettings.of(settings)
        super().__init__(settings, settings.min_containers, settings.max_containers, IDLE_SECONDS)

    async def _open(self) -> None:
        if shutil.which(self.program) is None:
            raise SandboxUnavailable(f"{self.program} is not installed: install it, or choose another tool_pool_mode")
        try:
            await self._run("version")
        except SandboxError as error:
            raise SandboxUnavailable(f"{self.program} does not work here: {error}") from error
        if self.settings.purge_job_on_start:
            await self._purge()

    async def _close(self, purge: bool) -> None:
        if purge:
            await self._purge()

    async def _launch(self) -> SlotHost:
        settings = self.settings
        name = f"lagentlike-{secrets.token_hex(6)}"
        owned = OwnedFolder("docker")
        folder = owned.path
        token = secrets.token_urlsafe(32)
        (folder / "token").touch(mode=0o600)
        (folder / "token").write_text(token)

        async def end() -> None:
            try:
                await self._run("rm", "--force", name)
            finally:
                with suppress(OSError):  # the next process tries again
                    await asyncio.to_thread(owned.remove)

        async def gone() -> str:
            code = (await self._run("wait", name, seconds=None)).strip()
            return f"the container {name} ended (exit code {code})"

        host = RemoteHost(name, token, socket=str(folder / "server"), gone=gone, end=end)
        try:
            await self._run(
                *("run", "--detach", "--name", name, "--label", f"{_LABEL}={settings.sandbox_job_id}"),
                *("--network", "bridge" if settings.allow_network else "none"),
                *(("--privileged",) if settings.privileged else _UNPRIVILEGED),
                *("--memory", f"{settings.memory_mb * settings.slots_per_container}m"),
                *("--pids-limit", str((settings.max_processes + 8) * settings.slots_per_container + 32)),
                *("--volume", f"{folder}:{_RUN_DIRECTORY}"),
                settings.sandbox_image,
                *server_command(settings, settings.slots_per_container),
                *("--socket", f"{_RUN_DIRECTORY}/server", "--token-file", f"{_RUN_DIRECTORY}/token"),
            )
            try:
                await host.connect(START_SECONDS)
            except SandboxError as error:
                raise SandboxError(f"{settings.sandbox_image}: {error}: {await self._said(name)}") from error
        except BaseException:
            await self._undone(host.close())
            raise
        return host

    async def _said(self, name: str) -> str:
        """The last that a container wrote, if Docker keeps that."""
        try:
            return (await self._run("logs", "--tail", "20", name)).strip()[-2000:]
        except SandboxError as error:
            return str(error)

    async def _purge(self) -> None:
        """Remove all containers of the job, whoever started them."""
        label = f"label={_LABEL}={self.settings.sandbox_job_id}"
        names = (await self._run("ps", "--all", "--quiet", "--filter", label)).split()
        if names:
            await self._run("rm", "--force", *names)

    async def _run(self, *arguments: str, seconds: float | None = COMMAND_SECONDS) -> str:
        """What a command of Docker says.

        Raises:
            SandboxError: it failed, or took too long.
        """
        process = await asyncio.create_subprocess_exec(
            self.program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(seconds):
                output, errors = await process.communicate()
        except TimeoutError:
            raise SandboxError(f"{self.program} {arguments[0]} took longer than {seconds:g} seconds") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        if process.returncode:
            said = errors.decode("utf-8", "replace").strip()[-2000:]
            raise SandboxError(f"{self.program} {arguments[0]} failed: {said}")
        return (output + (errors if arguments[0] == "logs" else b"")).decode("utf-8", "replace")


class PodmanBackend(DockerBackend):
    """The same with Podman.

    Args:
        settings: `SandboxSettings`, or a dict or object with some of their names.
    """

    name = "podman"
    program = "podman"


IDLE_SECONDS = 300.0
"""How long a container that is not one of the least is kept while nobody uses it."""

_UNPRIVILEGED = (
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    # What the server needs to give each slot a user of its own and to clean up after it.
    *(part for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID") for part in ("--cap-add", name)),
)


def server_command(settings: SandboxSettings, slots: int) -> list[str]:
    """The command that serves slots in a container."""
    return [
        *("python3", "-m", "lagentlike.sandbox.server", "--slots", str(slots)),
        *("--memory-mb", str(settings.memory_mb), "--processes", str(settings.max_processes)),
        *("--output", str(settings.max_output_bytes)),
        *(("--network",) if settings.allow_network else ()),
    ]
