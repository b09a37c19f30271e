"""What sees to it that nothing outlives this process, even if it is killed: a small process that waits for its end."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import uuid
from pathlib import Path

from .cgroups import controllers, group_prefix

__all__ = ["MARK", "keeper"]

MARK = "LAGENTLIKE_RUN"
"""The environment variable by which what was started is found again."""


class _Keeper:
    """The keeper process of this process, started when it is first needed.

    `bwrap --die-with-parent` holds once bwrap has set up its namespaces; what is killed in these milliseconds, and
    what runs without bwrap, is left to the keeper. It holds the reading end of a pipe and ends, with all that bears
    this process's mark or is in its control groups, when nobody holds the other end any more.
    """

    _pipe: int | None
    _name: str

    def __init__(self) -> None:
        self._pipe = None
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def mark(self) -> str:
        """The mark for a process that is about to be started: a value for the variable `MARK`."""
        with self._guard:
            if self._pipe is None:
                self._pipe = self._start()
        return f"{self._name}-{next(self._numbers)}"

    def _start(self) -> int:
        source, sink = os.pipe()
        program = str(Path(__file__).with_name("keeper_program.py"))
        groups = [str(parent / group_prefix()) for parent in set(controllers().parents.values())]
        null = os.open(os.devnull, os.O_RDWR)
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-B", program, f"{MARK}={self._name}-", *groups],
            {"LAGENTLIKE_KEEPER": self._name},  # one without variables would look like one that just starts
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((source, null, null))],
            setsid=True,
        )
        os.close(source)
        os.close(null)
        return sink

    def _forget(self) -> None:
        """At first, and in a forked child, there is none; the parent's keeper must not wait for the child."""
        if self._pipe is not None:
            os.close(self._pipe)
        self._pipe = None
        self._name = uuid.uuid4().hex
        self._guard = threading.Lock()
        self._numbers = itertools.count()


keeper = _Keeper()
