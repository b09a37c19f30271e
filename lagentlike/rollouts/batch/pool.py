"""The workers of a run, as the runner sees them: what each has to do, and which of them ended."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from ...errors import LagentlikeError
from ...records.encoding import decoded, encoded
from .dataset import Sample
from .engine import Link, Workers
from .store import Written
from .worker import LINES, WorkerSettings

__all__ = ["Failed", "WorkerPool", "WorkersFailed"]

_AHEAD = 2
"""How many times `batch_size` samples a worker is given, so that it never waits for the disk."""

_TROUBLED_STARTS = 3
"""So many workers, for each of the pool, may end in a row before one of them can begin."""

_END_SECONDS = 2.0
"""How long a worker that is told to end may take; then it is killed."""

_ALONE_AFTER = 2
"""After so many workers that ended with it, a sample runs with nothing beside it, to see whether it is the cause."""


class WorkersFailed(LagentlikeError):
    """No worker can work: the agent cannot be made, the key is refused, or the workers end as they start."""


@dataclass(slots=True)
class Failed:
    """An attempt that failed; with `hopeless`, another one would too."""

    sample: Sample
    error: str
    hopeless: bool = False


@dataclass(eq=False)
class _Worker:
    link: Link
    listener: threading.Thread = field(init=False)
    under_way: dict[str, Sample] = field(default_factory=dict)
    ready: bool = False
    ended: bool = False


class WorkerPool:
    """Workers that run samples; those that end are replaced.

    Args:
        workers: what starts them.
        number: how many.
        settings: what all samples have in common.
    """

    def __init__(self, workers: Workers, number: int, settings: WorkerSettings) -> None:
        self._starts, self._number, self._settings = workers, number, settings
        self._inbox: queue.SimpleQueue[tuple[_Worker, bytes | None]] = queue.SimpleQueue()
        self._waiting: deque[Sample] = deque()  # to be tried again
        self._suspects: deque[Sample] = deque()  # to run alone
        self._troubled = 0
        self._draining = False
        self.restarts = 0
        self._workers = [self._start() for _ in range(number)]

    @property
    def under_way(self) -> int:
        """How many samples workers have."""
        return sum(len(worker.under_way) for worker in self._workers)

    @property
    def waiting(self) -> int:
        """How many samples are to be tried again."""
        return len(self._waiting) + len(self._suspects)

    @property
    def processes(self) -> list[int]:
        """Process ids of the workers that are processes of this machine."""
        return [worker.link.pid for worker in self._workers if worker.link.pid is not None]

    def again(self, sample: Sample) -> None:
        """Have a sample tried once more."""
        self._waiting.append(sample)

    def give(self, samples: Iterator[Sample]) -> None:
        """Give workers as much as they can take."""
        most = _AHEAD * self._settings.batch_size
        for worker in self._workers:
            if worker.ended or not worker.ready:
                continue
            if self._suspects and not worker.under_way:
                self._hand(worker, [self._suspects.popleft()])
                continue
            if any(sample.deaths >= _ALONE_AFTER for sample in worker.under_way.values()):
                continue
            free = most - len(worker.under_way)
            if self._suspects or (free < most // 4 and worker.under_way):
                continue  # a suspect waits for it to be free; or it has enough
            chunk: list[Sample] = []
            while len(chunk) < free:
                sample = self._waiting.popleft() if self._waiting else next(samples, None)
                if sample is None:
                    break
                chunk.append(sample)
            if chunk:
                self._hand(worker, chunk)

    def results(self, seconds: float) -> Iterator[Written | Failed]:
        """What came in, waiting up to so many seconds for the first of it.

        Raises:
            WorkersFailed: they cannot work.
            ClusterLost: the cluster that they are part of is gone.
        """
        self._starts.check()
        with contextlib.suppress(queue.Empty):
            worker, message = self._inbox.get(timeout=seconds)
            while True:
                yield from self._ended(worker) if message is None else self._read(worker, message)
                worker, message = self._inbox.get_nowait()

    def drain(self) -> None:
        """Begin no sample any more; those under way go on."""
        self._draining = True
        self._waiting.clear()
        self._suspects.clear()
        self._tell("drain")

    def cancel(self) -> None:
        """Give up what is under way; the workers end."""
        self._draining = True
        self._tell("cancel")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers; what they have under way is given up."""
        self.cancel()
        for worker in self._workers:
            if worker.link.end(_END_SECONDS):
                worker.listener.join()
                worker.link.close()

    def _tell(self, word: str) -> None:
        for worker in self._workers:
            if not worker.ended:
                self._send(worker, word)

    def _start(self) -> _Worker:
        worker = _Worker(self._starts.start(self._settings))
        worker.listener = threading.Thread(
            target=self._listen, args=(worker,), name="lagentlike-batch-listen", daemon=True
        )
        worker.listener.start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        """Put what a worker says into the inbox, and at the end that it is gone."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._inbox.put((worker, worker.link.recv_bytes()))
        self._inbox.put((worker, None))

    def _hand(self, worker: _Worker, samples: list[Sample]) -> None:
        worker.under_way.update((sample.key, sample) for sample in samples)
        self._send(
            worker,
            [
                {"key": sample.key, "number": sample.number, "sample": sample.sample, "row": sample.row}
                for sample in samples
            ],
        )

    def _send(self, worker: _Worker, what: Any) -> None:
        with contextlib.suppress(OSError):  # it ended: its listener says so
            worker.link.send_bytes(encoded(what))

    def _read(self, worker: _Worker, message: bytes) -> Iterator[Written | Failed]:
        lines = message.split(b"\n")
        for place in range(0, len(lines), LINES):
            head, record, derived = lines[place : place + LINES]
            told = decoded(head)
            if "fatal" in told:
                raise WorkersFailed(told["fatal"])
            if "ready" in told:
                worker.ready, self._troubled = True, 0
                continue
            sample = worker.under_way.pop(told["key"])
            if "given_up" in told:
                continue
            if "error" in told:
                yield Failed(sample, told["error"], told["hopeless"])
            else:
                yield Written(told["key"], record, derived, told["summary"])

    def _ended(self, worker: _Worker) -> Iterator[Failed]:
        """A worker is gone: what it had is run again, alone if it was there several times."""
        worker.ended = True
        if self._draining:
            worker.under_way.clear()
            return
        how, is_blameless = worker.link.ending()
        worker.link.close()
        if not worker.ready:
            self._troubled += 1
            if self._troubled >= _TROUBLED_STARTS * self._number:
                raise WorkersFailed(f"workers end before they can begin ({how})")
        was_alone = len(worker.under_way) == 1
        for sample in worker.under_way.values():
            sample.deaths += not is_blameless
            if was_alone and not is_blameless:
                yield Failed(sample, f"WorkerDied: the worker that ran it alone ended ({how})")
            elif sample.deaths >= _ALONE_AFTER:
                self._suspects.append(sample)
            else:
                self._waiting.append(sample)
        self.restarts += 1
        self._workers[self._workers.index(worker)] = self._start()
