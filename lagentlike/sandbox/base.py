"""What every kind of sandbox offers: slots that are leased, tools that run in them, files that are taken out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

from ..errors import SandboxError, SlotLost

__all__ = ["Artifact", "ArtifactEntry", "ExecutionResult", "Slot", "SlotRequest", "ToolBackend"]

MAX_ARTIFACT = 16 * 1024 * 1024
"""Most bytes of one artifact, or of an archive, that are given out."""


@dataclass(slots=True, eq=False)
class Slot:
    """A place where one trajectory's tools run: a workspace, and processes that see nothing of other slots.

    Attributes:
        id: its name, once in a backend.
        container: the container (or machine) it is in.
        workspace: its directory, as the tools see it.
        trajectory_id: whose it is now.
        lost: why it cannot be used any more; empty while it can.
    """

    id: str
    container: str = ""
    workspace: str = "/workspace"
    trajectory_id: str | None = None
    lost: str = ""

    def check(self) -> None:
        """Raise `SlotLost` if it cannot be used any more."""
        if self.lost:
            raise SlotLost(self.lost)


@dataclass(slots=True)
class ExecutionResult:
    """What a tool did in a slot.

    Attributes:
        success: whether it worked; a command that ends with another exit code than 0 did not.
        output: what it gave: of a command, stdout and stderr as they came, head and tail where it is long.
        error: why it did not work.
        exit_code: of a command that ended.
        timed_out: whether it was stopped because it took too long.
        lost: whether the slot is gone, and all that was in it.
        metadata: what else is known.
    """

    success: bool
    output: str = ""
    error: str = ""
    exit_code: int | None = None
    timed_out: bool = False
    lost: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def slot_lost(cls, why: str) -> ExecutionResult:
        """The result of a call in a slot that is gone."""
        return cls(False, error=why, lost=True)

    @classmethod
    def unavailable(cls, why: str) -> ExecutionResult:
        """The result of a call that the sandbox could not take; `unavailable` in its metadata says so."""
        return cls(False, error=why, metadata={"unavailable": True})

    @classmethod
    def read(cls, reply: Any) -> ExecutionResult:
        """The result that JSON data from a sandbox tells, which nobody vouches for.

        Raises:
            SandboxError: it is no result.
        """
        if not isinstance(reply, dict) or not isinstance(reply.get("success"), bool):
            raise SandboxError("the sandbox answered with what is no result")
        texts = {name: reply.get(name) or "" for name in ("output", "error")}
        code, metadata = reply.get("exit_code"), reply.get("metadata") or {}
        whole = code is None or (isinstance(code, int) and abs(code) < 1 << 31)
        if not all(isinstance(text, str) for text in texts.values()) or not whole or not isinstance(metadata, dict):
            raise SandboxError("the sandbox answered with what is no result")
        known = {name: item for name, item in list(metadata.items())[:32] if _is_small(item)}
        timed_out, lost = reply.get("timed_out") is True, reply.get("lost") is True
        return cls(reply["success"], texts["output"], texts["error"], code, timed_out, lost, known)

    def plain(self) -> dict[str, Any]:
        """The same as JSON data, for `read`."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def _is_small(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 1024)


class SlotRequest(NamedTuple):
    """A call of a tool in a slot, its arguments checked."""

    slot: Slot
    tool: str
    arguments: Mapping[str, Any]


class Artifact(NamedTuple):
    """A file of a workspace: `size` is that of the whole file, of which `content` is the beginning if it is longer."""

    path: str
    content: bytes
    size: int

    @property
    def truncated(self) -> bool:
        """Whether there is more of it."""
        return len(self.content) < self.size

    @property
    def text(self) -> str:
        """The content as text; what is no UTF-8 becomes U+FFFD."""
        return self.content.decode("utf-8", "replace")


class ArtifactEntry(NamedTuple):
    """What a workspace has at a path; `size` is in bytes, `modified` in seconds since 1970."""

    path: str
    kind: str  # "file", "directory", "link" or "other"
    size: int
    modified: float


class ToolBackend(ABC):
    """A pool of slots of one kind; `create_tool_backend` makes one.

    A backend belongs to the event loop in which it is started. `async with backend:` starts and stops it.

    Attributes:
        name: the kind.
        isolated: whether what runs in a slot is held back from the machine and from other slots.
        stateful: whether processes of a slot last from one call to the next.
    """

    name: ClassVar[str]
    isolated: ClassVar[bool] = True
    stateful: bool = True

    @abstractmethod
    async def start(self) -> None:
        """Get ready.

        Raises:
            SandboxUnavailable: it cannot work here; the message says what is missing.
        """

    @abstractmethod
    async def stop(self, purge: bool = False) -> None:
        """End all slots.

        Args:
            purge: also remove what would be there for the next run, such as a job at a scheduler.
        """

    @abstractmethod
    async def acquire(self, trajectory_id: str, timeout_s: float | None = None) -> Slot:
        """Lease a slot, in the order in which they are asked for; a trajectory that has one is given that.

        Args:
            trajectory_id: whose it will be.
            timeout_s: seconds to wait; the settings' `acquire_timeout_s` by default.

        Raises:
            SlotTimeout: none came free in time.
            SandboxError: the backend was stopped, or no slot can be made.
        """

    @abstractmethod
    async def release(self, slot: Slot, reset_workspace: bool = False) -> None:
        """Give a slot back. One that is lost, or cannot be reset, is thrown away and another one takes its place.

        Args:
            slot: the slot.
            reset_workspace: end its processes and empty its workspace, before anybody else has it.
        """

    @abstractmethod
    def run_batch(
        self, requests: Sequence[SlotRequest], timeout_s: float
    ) -> AsyncIterator[tuple[int, ExecutionResult]]:
        """Run tools in slots side by side; `(index of the request, result)` of each as soon as it is there.

        Args:
            requests: each for another slot, or in order for the same one.
            timeout_s: seconds that each may take.
        """

    async def execute_batch(
        self, requests: Sequence[SlotRequest | tuple[Slot, str, Mapping[str, Any]]], timeout_s: float
    ) -> list[ExecutionResult]:
        """Run tools in slots side by side, and wait for all; the results in the order of the requests."""
        results: list[ExecutionResult | None] = [None] * len(requests)
        stream = self.run_batch([SlotRequest(*request) for request in requests], timeout_s)
        async with aclosing(stream) as arriving:  # type: ignore[type-var]
            async for index, result in arriving:
                results[index] = result
        missing = "the backend gave no result"
        return [ExecutionResult(False, error=missing) if result is None else result for result in results]

    @abstractmethod
    async def read_artifact(self, slot: Slot, path: str, max_bytes: int = MAX_ARTIFACT) -> Artifact:
        """A file of the workspace, or the first bytes of it.

        Raises:
            ArtifactError: it is not there, no file, or outside the workspace.
            SlotLost: the slot is gone.
        """

    @abstractmethod
    async def list_artifacts(self, slot: Slot, path: str = ".", recursive: bool = False) -> list[ArtifactEntry]:
        """What a directory of the workspace holds, by path; links are listed and not followed.

        Raises:
            ArtifactError: it is not there, no directory, or outside the workspace.
            SlotLost: the slot is gone.
        """

    @abstractmethod
    async def archive_artifacts(self, slot: Slot, path: str = ".") -> bytes:
        """A directory or file of the workspace as a gzipped tar file.

        Raises:
            ArtifactError: it is not there, too large, or outside the workspace.
            SlotLost: the slot is gone.
        """

    @abstractmethod
    def get_stats(self) -> dict[str, Any]:
        """How many slots there are, in use and waited for, and what was done in them."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
