"""The program of one slot on this machine, seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from ..errors import SandboxError, SlotLost
from .bubblewrap import Bwrap
from .http import MAX_REPLY
from .isolation import Isolation
from .limits import Limits
from .process import Process

__all__ = ["SlotProcess"]

START_SECONDS = 30.0
"""How long the program may take to start."""

GRACE_SECONDS = 3.0
"""How long it may take to answer after the time of a call is up."""

END_SECONDS = 0.5
"""How long its end is waited for when it has stopped to talk."""


class SlotProcess:
    """A running `slot_worker`, isolated; one request at a time.

    What it answers may be written by the code that runs in it: it is read as plain JSON of bounded size, and anything
    else loses the slot.
    """

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lost = ""
        self._process = process
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self._ended = asyncio.Event()
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._gone)

    @classmethod
    async def start(
        cls, isolation: Isolation, folder: Path | None, limits: Limits, env: Mapping[str, str]
    ) -> SlotProcess:
        """Start the program of a slot.

        Args:
            isolation: how it is held back.
            folder: a directory of ours, in which its workspace is; None for one in memory, which bubblewrap has.
            limits: how much of the machine it may use.
            env: environment variables that it gets in addition.

        Raises:
            SandboxUnavailable: it cannot be isolated here.
            SlotLost: it did not start.
        """
        workspace = None if folder is None else isolation.scratch_folder(folder / "workspace")
        if folder is None or isinstance(isolation, Bwrap):
            state = Path("/tmp/.slot")  # noqa: S108  # the sandbox's own
        else:
            state = isolation.scratch_folder(folder / "state")
        ours, theirs = socket.socketpair()
        try:
            process = await isolation.start_async(
                [sys.executable, "-I", "-S", "-c", _BOOT],
                workspace=workspace,
                limits=limits,
                env=env,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=MAX_REPLY)
        slot = cls(process, reader, writer)
        settings = {"workspace": process.workspace, "state": str(state), "max_output_bytes": limits.output}
        try:
            reply = await slot._exchange(json.dumps(settings).encode(), START_SECONDS)
            if reply.get("ready") is not True:
                raise SlotLost("the sandbox of the slot did not start")
        except BaseException:
            await slot.close()
            raise
        return slot

    @property
    def pid(self) -> int:
        """The process of this machine that stands for it."""
        return self._process.pid

    async def run(self, tool: str, arguments: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """What a tool answers, and of one that failed, whether a process was killed meanwhile for want of memory.

        Raises:
            SlotLost: the program ended, does not answer, or answers with what is no JSON object.
        """
        try:
            request = json.dumps({"tool": tool, "arguments": dict(arguments), "timeout_s": timeout_s}).encode()
        except (TypeError, ValueError) as error:
            return {"success": False, "error": f"the arguments of {tool} are no JSON: {error}"}
        async with self._turn:
            reply = await self._exchange(request, timeout_s + GRACE_SECONDS)
            if reply.get("success") is False and (news := self._process.news()):
                reply["error"] = f"{reply.get('error')}; {news}"
            return reply

    def kill(self, why: str) -> None:
        """End it and all that it started, without waiting."""
        self.lost = self.lost or why
        self._process.kill()

    async def close(self) -> None:
        """End it and all that it started, and wait until they are gone.

        Raises:
            SandboxError: they are not.
        """
        self.lost = self.lost or "the slot was closed"
        self._forget()
        self._writer.close()
        try:
            await asyncio.shield(asyncio.to_thread(self._process.close))
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SandboxError(f"the processes of a slot cannot be ended: {error}") from error

    async def _exchange(self, request: bytes, seconds: float) -> dict[str, Any]:
        if self.lost:
            raise SlotLost(self.lost)
        reply: Any = None
        try:
            async with asyncio.timeout(seconds):
                self._writer.write(request + b"\n")
                await self._writer.drain()
                line = await self._reader.readline()
            reply = orjson.loads(line) if line else None
        except ConnectionError:  # it has ended
            reply = None
        except TimeoutError:
            self.kill("the sandbox of the slot does not answer any more, and was ended")
        except ValueError as error:  # no JSON, or a line that is too long
            self.kill(f"the sandbox of the slot gave no answer that can be read: {error}"[:200])
        except asyncio.CancelledError:  # the next answer would be that of this request
            self.kill("a call in the slot was given up, and the slot with it")
            raise
        if not isinstance(reply, dict):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self._ended.wait()
            self.kill(self._why())
            raise SlotLost(self.lost)
        return reply

    def _why(self) -> str:
        how = "" if self._process.poll() is None else f" ({self._process.epitaph()})"
        return f"the sandbox of the slot ended{how}; what was in it is gone"

    def _gone(self) -> None:
        """The process has ended: no answer comes any more, even if somebody still holds the other end."""
        self._forget()
        self.lost = self.lost or self._why()
        self._ended.set()
        asyncio.get_running_loop().call_later(0.05, self._reader.feed_eof)  # what it wrote before may be on its way

    def _forget(self) -> None:
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)


_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = f"import sys; sys.path.insert(0, {_ROOT!r}); from lagentlike.sandbox.slot_worker import main; main()"
