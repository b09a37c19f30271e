"""What a pool asks of the place where its workers are: this machine, or a cluster."""

from __future__ import annotations

from typing import Protocol

from ...cluster import Ending
from .worker import WorkerSettings

__all__ = ["Link", "Workers"]


class Link(Protocol):
    """A worker, as the runner reaches it: what `work` is given at its end of a pipe."""

    @property
    def pid(self) -> int | None:
        """Its process, if that is one of this machine."""

    def send_bytes(self, message: bytes, /) -> None:
        """Tell it something.

        Raises:
            OSError: it is gone.
        """

    def recv_bytes(self) -> bytes:
        """What it says next.

        Raises:
            EOFError, OSError: it is gone.
        """

    def ending(self) -> Ending:
        """How it ended; to be asked when `recv_bytes` has raised."""

    def end(self, seconds: float) -> bool:
        """Let it end by itself, and kill it if it takes longer than so many seconds; whether it is gone."""

    def close(self) -> None:
        """Let go of what it took on this side; when it is gone."""


class Workers(Protocol):
    """Starts workers."""

    def start(self, settings: WorkerSettings) -> Link:
        """Start another one."""

    def check(self) -> None:
        """Called now and then.

        Raises:
            ClusterLost: there is nothing left that workers could run on.
        """

    def close(self) -> None:
        """Let go of everything; when the workers are gone."""
