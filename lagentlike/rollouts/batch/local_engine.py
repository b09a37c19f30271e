"""Workers on this machine: processes, or a thread of this one."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ...agents.agent import Agent
from ...cluster import Ending
from ...errors import InvalidArgument
from .worker import STOPPING, work, WorkerSettings

__all__ = ["LocalWorkers"]


class LocalWorkers:
    """Starts workers on this machine.

    Args:
        source: an agent, or what is called in each worker to get one.
        own_process: whether each worker is a process; otherwise it is a thread of this one.
    """

    def __init__(self, source: Any, own_process: bool) -> None:
        if own_process and isinstance(source, Agent):
            raise InvalidArgument(
                "agent", source, "an agent stays in this process: give num_workers=0, or a function that makes agents"
            )
        self._source, self._own_process = source, own_process

    def start(self, settings: WorkerSettings) -> _LocalLink:
        ours, theirs = multiprocessing.Pipe()
        arguments = (theirs, self._source, settings, self._own_process)
        runs: BaseProcess | threading.Thread
        if self._own_process:
            runs = multiprocessing.get_context("spawn").Process(target=work, args=arguments, daemon=True)
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # until the worker ignores them
            try:
                runs.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
        else:
            runs = threading.Thread(target=work, args=arguments, name="lagentlike-batch", daemon=True)
            runs.start()
        return _LocalLink(ours, runs)

    def check(self) -> None:
        """This machine is there."""

    def close(self) -> None:
        """There is nothing to let go of."""


class _LocalLink:
    def __init__(self, connection: Connection, runs: BaseProcess | threading.Thread) -> None:
        self._runs = runs
        self.send_bytes, self.recv_bytes, self.close = connection.send_bytes, connection.recv_bytes, connection.close

    @property
    def pid(self) -> int | None:
        return self._runs.pid if isinstance(self._runs, BaseProcess) else None

    def ending(self) -> Ending:
        self._runs.join()
        code = self._runs.exitcode if isinstance(self._runs, BaseProcess) else None
        return Ending(f"exit code {code}", is_blameless=False)

    def end(self, seconds: float) -> bool:
        self._runs.join(seconds)
        if isinstance(self._runs, BaseProcess) and self._runs.is_alive():
            self._runs.kill()
            self._runs.join()
        return not self._runs.is_alive()  # a thread that is stuck keeps its end of the pipe
