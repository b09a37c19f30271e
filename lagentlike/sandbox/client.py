"""The slots of a sandbox server, reached over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import orjson

from ..errors import ArtifactError, SandboxError, SlotLost
from .base import ExecutionResult
from .host import HostCall, SlotHost
from .http import bearer, MAX_REPLY, read_body

__all__ = ["RemoteHost"]

BEAT_SECONDS = 5.0
"""How often a server is told that its slots are still wanted."""

MISSED_BEATS = 3
"""After how many of them without an answer it counts as gone."""

PAUSE_SECONDS = 0.2
"""How long after one of them the next is asked for."""

SPARE_SECONDS = 10.0
"""How much longer than the call an answer may take."""


class RemoteHost(SlotHost):
    """A sandbox server as a host of slots.

    What comes from it may be written by the code that runs there: it is read as plain JSON of bounded size. A
    connection that breaks loses the slots of the calls that were under way, since nobody knows what they did.

    Args:
        name: its id.
        token: its token.
        url: where it listens, such as `http://10.0.0.7:8080`; or
        socket: the path of its Unix socket.
        gone: awaited to learn why it has ended, where something else than its silence can tell.
        end: awaited to end it.
    """

    def __init__(
        self,
        name: str,
        token: str,
        *,
        url: str = "http://sandbox",
        socket: str | None = None,
        gone: Callable[[], Coroutine[Any, Any, str]] | None = None,
        end: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.id = name
        self._url = url.rstrip("/")
        self._gone = gone
        self._end = end
        connector = aiohttp.TCPConnector(limit=0) if socket is None else aiohttp.UnixConnector(socket, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, headers=bearer(token))
        self._names: dict[str, str] = {}
        self._broken = asyncio.Event()

    async def connect(self, seconds: float) -> None:
        """Wait until it answers, and learn its slots.

        Raises:
            SandboxError: it does not answer in time, or is gone.
        """
        connecting = asyncio.ensure_future(self._connect(seconds))
        waits = [connecting, *([] if self._gone is None else [asyncio.ensure_future(self._gone())])]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if connecting not in done:
                raise SandboxError(str(done.pop().result()))
            connecting.result()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _connect(self, seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                self._names = _slots(await self._request("GET", "/slots", None, 5.0))
                return
            except SlotLost as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise SandboxError(f"the sandbox server does not answer after {seconds:g} seconds") from error
            await asyncio.sleep(0.1)

    def slots(self) -> dict[str, str]:
        return dict(self._names)

    async def run_batch(
        self, calls: Sequence[HostCall], timeout_s: float
    ) -> AsyncIterator[tuple[int, ExecutionResult]]:
        body = {"calls": [call._asdict() for call in calls], "timeout_s": timeout_s}
        waiting = set(range(len(calls)))
        headers = {"Accept": "application/x-ndjson"}
        async with self._open("POST", "/batch", body, timeout_s + SPARE_SECONDS, headers) as response:
            async for line in _lines(response):
                value = _loaded(line)
                index = value.get("index")
                if not isinstance(index, int) or index not in waiting:
                    raise SlotLost("the sandbox server answered what nobody asked")
                waiting.discard(index)
                yield index, _result(value.get("result"))

    async def ask(self, slot: str, action: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._request("POST", f"/{action}", {"slot": slot, **arguments}, 70.0)

    async def reset(self, slot: str) -> str:
        reply = await self._request("POST", "/reset", {"slot": slot}, 60.0)
        name, workspace = reply.get("slot"), reply.get("workspace")
        if not isinstance(name, str) or not isinstance(workspace, str) or len(name) > 64:
            raise SandboxError("the sandbox server answered with what is no slot")
        self._names.pop(slot, None)
        self._names[name] = workspace
        return name

    async def alive(self) -> bool:
        """Whether it answers, if not at once, then when it is asked again: others' work is in it."""
        for pause in (*[PAUSE_SECONDS] * (MISSED_BEATS - 1), 0.0):
            with suppress(SandboxError):
                await self._request("GET", "/slots", None, BEAT_SECONDS)
                return True
            await asyncio.sleep(pause)
        return False

    async def ended(self) -> str:
        waits = [asyncio.ensure_future(self._silent())]
        if self._gone is not None:
            waits.append(asyncio.ensure_future(self._gone()))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        except SandboxError as error:
            return str(error)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def close(self) -> None:
        await self._session.close()
        if self._end is not None:
            await self._end()

    async def _silent(self) -> str:
        """Ask now and then, and at once when a connection breaks, until it does not answer."""
        while await self.alive():
            self._broken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._broken.wait()
        return "the sandbox server does not answer any more"

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float) -> dict[str, Any]:
        async with self._open(method, path, body, seconds) as response:
            return _loaded(await read_body(response))

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A reply of status 200.

        Raises:
            SlotLost: there is none that can be read.
            ArtifactError, SandboxError: the server says so.
        """
        try:
            async with self._session.request(
                method,
                self._url + path,
                data=None if body is None else orjson.dumps(body),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise _refusal(response.status, await read_body(response))
                yield response
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:  # the last of a closed session
            self._broken.set()
            raise SlotLost(
                f"the connection to the sandbox broke ({type(error).__name__}); what was in it is gone"
            ) from error


def _refusal(status: int, body: bytes) -> SandboxError:
    value = _loaded(body)
    text = str(value.get("error", ""))[:1000] or f"the sandbox server answered with status {status}"
    if value.get("kind") == "ArtifactError":
        return ArtifactError(text)
    return SlotLost(text) if status == 410 else SandboxError(text)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a reply as they come, whatever their length up to `MAX_REPLY`."""
    held = bytearray()
    async for piece in response.content.iter_any():
        held += piece
        if b"\n" in piece:
            *whole, rest = bytes(held).split(b"\n")
            for line in whole:
                yield line
            held = bytearray(rest)
        if len(held) > MAX_REPLY:
            raise ValueError("a line is too long")


def _loaded(body: bytes) -> dict[str, Any]:
    value = orjson.loads(body)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _result(value: Any) -> ExecutionResult:
    try:
        return ExecutionResult.read(value)
    except SandboxError as error:
        return ExecutionResult.slot_lost(str(error))


def _slots(reply: Mapping[str, Any]) -> dict[str, str]:
    slots = reply.get("slots")
    if not isinstance(slots, dict) or len(slots) > 10_000:
        raise SandboxError("the sandbox server answered with what are no slots")
    return {str(name)[:64]: str(workspace) for name, workspace in slots.items()}
