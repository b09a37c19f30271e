"""Slots in containers that Nomad schedules, by its HTTP API."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from ..errors import SandboxError, SandboxUnavailable
from .client import RemoteHost
from .docker import IDLE_SECONDS, server_command, START_SECONDS
from .host import SlotHost
from .http import read_body
from .pooled import PooledBackend
from .server import TOKEN_VARIABLE
from .settings import SandboxSettings

__all__ = ["NomadBackend", "job_specification"]

POLL_SECONDS = 1.0
"""How often Nomad is asked what became of allocations."""

GROUP = "sandbox"
PORT = 8080


class NomadBackend(PooledBackend):
    """Containers of a Nomad job, each with a sandbox server and its slots.

    The job has one task group, which is scaled as slots are wanted; Nomad starts another allocation in the place of one
    that fails. The servers are reached at the addresses of the allocations, over HTTP: the network between must be a
    private one. Without `allow_network` the containers must be `privileged`, so that bubblewrap works in them and can
    take the network from the slots: otherwise no server starts.

    Args:
        settings: `SandboxSettings`, or a dict or object with some of their names.
    """

    name = "nomad"

    def __init__(self, settings: Any = None) -> None:
        settings = SandboxSettings.of(settings)
        super().__init__(settings, settings.min_containers, settings.max_containers, IDLE_SECONDS)
        self._token = secrets.token_urlsafe(32)
        self._session: aiohttp.ClientSession | None = None
        self._count = 0
        self._adopted: dict[str, int] = {}  # the number of each in its group
        self._ended: set[str] = set()
        self._starting = asyncio.Lock()
        self._job = f"/v1/job/{quote(settings.sandbox_job_id, safe='')}"

    async def _open(self) -> None:
        token = self.settings.nomad_token or os.environ.get("NOMAD_TOKEN")
        self._session = aiohttp.ClientSession(headers={"X-Nomad-Token": token} if token else {})
        self._count, self._adopted, self._ended = self.settings.min_containers, {}, set()
        try:
            await self._tell("GET", "/v1/agent/health")
            if self.settings.purge_job_on_start:
                await self._purge()
            await self._tell("POST", "/v1/jobs", {"Job": job_specification(self.settings, self._token)})
        except BaseException as error:
            session, self._session = self._session, None
            await session.close()
            if not isinstance(error, SandboxError):
                raise
            raise SandboxUnavailable(f"Nomad at {self.settings.nomad_address} cannot be used: {error}") from error

    async def _close(self, purge: bool) -> None:
        session = self._session
        if session is None:
            return
        try:
            if purge:
                await self._purge()
            else:
                await self._scale(0)
        finally:
            self._session = None
            await session.close()

    async def _launch(self) -> SlotHost:
        """Adopt an allocation of the job that runs, and scale the job if there will be none."""
        async with self._starting:
            wanted = len(self._adopted) + 1
            if wanted > self._count:
                await self._scale(wanted)
            allocation, number = await self._next_allocation()
            self._adopted[allocation] = number
        try:
            url = await self._address(allocation)
        except BaseException:
            await self._undone(self._let_go(allocation))
            raise
        host = RemoteHost(
            _host_name(allocation),
            self._token,
            url=url,
            gone=lambda: self._gone(allocation),
            end=lambda: self._let_go(allocation),
        )
        try:
            await host.connect(START_SECONDS)
        except BaseException:
            await self._undone(host.close())
            raise
        return host

    def _may_end(self, host: SlotHost) -> bool:
        """Whether it has the highest number: a job that is made smaller loses those, whatever they do."""
        numbers = {_host_name(allocation): number for allocation, number in self._adopted.items()}
        return numbers[host.id] == max(numbers.values()) and not self._starting.locked()

    async def _next_allocation(self) -> tuple[str, int]:
        """An allocation that runs and is not ours yet, as soon as there is one: its id, and its number in the group."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while True:
            for allocation in await self._allocations():
                if allocation.get("ClientStatus") == "running" and allocation.get("DesiredStatus") == "run":
                    found = str(allocation.get("ID"))
                    if found not in self._adopted and found not in self._ended:
                        number = re.search(r"\[(\d+)\]$", str(allocation.get("Name")))
                        return found, int(number[1]) if number else 0
            if asyncio.get_running_loop().time() > deadline:
                raise SandboxError(
                    f"Nomad started no container within {START_SECONDS:g} seconds: look at its evaluation"
                )
            await asyncio.sleep(POLL_SECONDS / 4)

    async def _address(self, allocation: str) -> str:
        """Where the server of an allocation listens."""
        found = await self._tell("GET", f"/v1/allocation/{quote(allocation, safe='')}")
        try:
            ports = found["AllocatedResources"]["Shared"]["Ports"]
            port = next(port for port in ports if port["Label"] == "http")
            host = str(port["HostIP"])
            return f"http://{f'[{host}]' if ':' in host else host}:{int(port['Value'])}"
        except (KeyError, TypeError, ValueError, StopIteration):
            raise SandboxError(f"Nomad names no port of allocation {allocation[:8]}") from None

    async def _gone(self, allocation: str) -> str:
        """Wait until an allocation does not run any more; what became of it."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                states = {one.get("ID"): one.get("ClientStatus") for one in await self._allocations()}
            except SandboxError:  # Nomad is away: its containers may be there
                continue
            if states.get(allocation) != "running":
                return f"the allocation {allocation[:8]} is {states.get(allocation) or 'gone'}"

    async def _let_go(self, allocation: str) -> None:
        """Stop an allocation that is not wanted any more; if it has not the highest number, another takes its place."""
        self._ended.add(allocation)  # and never will be ours again, even if Nomad still calls it running
        number = self._adopted.pop(allocation)
        if not self._running:
            return  # the whole job ends
        wanted = max(self._least, 1 + max(self._adopted.values(), default=-1))
        if wanted <= number and not self._starting.locked():
            await self._scale(wanted)
        else:
            await self._tell("POST", f"/v1/allocation/{quote(allocation, safe='')}/stop")

    async def _scale(self, count: int) -> None:
        body = {"Count": count, "Target": {"Group": GROUP}, "Message": "slots wanted by lagentlike"}
        await self._tell("POST", f"{self._job}/scale", body)
        self._count = count

    async def _allocations(self) -> list[dict[str, Any]]:
        found = await self._tell("GET", f"{self._job}/allocations")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    async def _purge(self) -> None:
        """End the job, and let Nomad forget it."""
        await self._tell("DELETE", f"{self._job}?purge=true", missing_ok=True)

    async def _tell(self, method: str, path: str, body: Any = None, *, missing_ok: bool = False) -> Any:
        """What Nomad answers.

        Raises:
            SandboxError: nothing, or an error.
        """
        if self._session is None:
            raise SandboxError("the backend is not running")
        namespace = self.settings.nomad_namespace
        try:
            async with self._session.request(
                method,
                self.settings.nomad_address.rstrip("/") + path,
                params=None if namespace is None else {"namespace": namespace},
                data=None if body is None else orjson.dumps(body),
                timeout=aiohttp.ClientTimeout(total=30),
                allow_redirects=False,
            ) as response:
                content = await read_body(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SandboxError(f"Nomad does not answer: {type(error).__name__}: {error}") from error
        if missing_ok and response.status == 404:
            return None
        if response.status >= 300:
            said = content.decode("utf-8", "replace").strip()[:500]
            raise SandboxError(f"Nomad answered {method} {path} with {response.status}: {said}")
        try:
            return orjson.loads(content) if content else None
        except ValueError:
            raise SandboxError(f"Nomad answered {method} {path} with what is no JSON") from None


def _host_name(allocation: str) -> str:
    return f"nomad-{allocation[:8]}"


def job_specification(settings: SandboxSettings, token: str) -> dict[str, Any]:
    """The job as Nomad's API wants it: https://developer.hashicorp.com/nomad/api-docs/json-jobs.

    Args:
        settings: what the containers are like.
        token: the token of their servers.
    """
    program, *arguments = server_command(settings, settings.slots_per_container)
    arguments += ["--host", "0.0.0.0", "--port"]  # of the container
    if settings.driver == "docker":
        config: dict[str, Any] = {"image": settings.sandbox_image, "ports": ["http"], "privileged": settings.privileged}
        config |= {"command": program, "args": [*arguments, str(PORT)]}
    else:  # Nomad has no driver for Singularity, so its program is run on the node, with the port that is free there
        image = settings.singularity_image or settings.sandbox_image
        inner = [program, *arguments, "${NOMAD_PORT_http}"]
        config = {"command": "singularity", "args": ["exec", "--writable-tmpfs", image, *inner]}
    return {
        "ID": settings.sandbox_job_id,
        "Name": settings.sandbox_job_id,
        "Type": "service",
        "Datacenters": ["*"],
        "TaskGroups": [
            {
                "Name": GROUP,
                "Count": settings.min_containers,
                "Networks": [{"DynamicPorts": [{"Label": "http", "To": PORT}]}],
                "RestartPolicy": {
                    "Attempts": 0,
                    "Mode": "fail",
                },  # a container that died is not the same when restarted
                "Tasks": [
                    {
                        "Name": "server",
                        "Driver": "docker" if settings.driver == "docker" else "raw_exec",
                        "Config": config,
                        "Env": {TOKEN_VARIABLE: token},
                        "Resources": {"CPU": 1000, "MemoryMB": settings.memory_mb * settings.slots_per_container},
                    }
                ],
            }
        ],
    }
