"""A process that ends with the one that started it."""

from __future__ import annotations

import contextlib
import subprocess
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

__all__ = ["ChildProcess", "ProcessOwner"]


class ChildProcess:
    """A process that ends when its standard input does: with `end`, with this object, and with this process.

    It must look out for that itself.

    Args:
        command: the program and its arguments.
        patience: seconds that it gets to end by itself; then it is killed.
        **options: as for `subprocess.Popen`.

    Attributes:
        popen: the process.
    """

    def __init__(self, command: Sequence[str], patience: float, **options: Any) -> None:
        self.popen: subprocess.Popen[bytes] = subprocess.Popen(command, stdin=subprocess.PIPE, **options)
        self._end = weakref.finalize(self, _end, self.popen, patience)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.popen.poll() is None

    def end(self) -> None:
        """End it, and wait for that."""
        self._end()


class ProcessOwner:
    """What starts a server in a process of its own."""

    _child: ChildProcess | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server's process."""
        assert self._child is not None, "the constructor starts it"
        return self._child.popen

    def shutdown(self) -> None:
        """Stop the server, which may first finish what is under way, and wait for its end."""
        if self._child is not None:
            self._child.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # what it did not read yet
        process.stdin.close()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
