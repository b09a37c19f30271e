"""A batch run: samples handed out, results put on the disk, a clean end whatever comes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Self

from ...agents.agent import Agent
from ...errors import InvalidArgument
from ...schema import to_plain
from ..rewards import check_reward, missing
from .dataset import Dataset, Sample
from .journal import journal_line
from .keys import content_hash, KeySet
from .lock import RunLock
from .pool import Failed, WorkerPool
from .report import report_page
from .settings import BatchSettings
from .statistics import RunStatistics
from .store import Recovery, RunStore, Written
from .worker import WorkerSettings

__all__ = ["BatchResult", "BatchRunner", "run_batch"]

_TICK = 0.2
"""Seconds between two looks at what else there is to do while no result comes."""

_CANCEL_SECONDS = 1.0
"""How long a sample that is cancelled may take to end."""


@dataclass(slots=True)
class BatchResult:
    """How a batch run ended.

    Attributes:
        folder: where its files are.
        total: samples that were asked for.
        done: samples with a record, those of earlier runs included.
        set_aside: samples that failed too often.
        stopped_by: the signal that stopped it early; None where it came to its end.
        recovery: what was found of an earlier run.
        statistics: as in `statistics.json`.
    """

    folder: Path
    total: int
    done: int
    set_aside: int
    stopped_by: signal.Signals | None
    recovery: Recovery
    statistics: dict[str, Any] = field(repr=False)

    @property
    def exit_code(self) -> int:
        """What a command ends with: 0, or 128 and the number of the signal."""
        return 0 if self.stopped_by is None else 128 + self.stopped_by


def run_batch(agent: Any, dataset_file: str | os.PathLike[str], run_name: str, **options: Any) -> BatchResult:
    """Run an agent over the rows of a file, in such a way that no crash loses or repeats a sample.

    Args:
        agent: an agent of any colour, or a function that makes one. Worker processes need a function that can be
            imported; it may also return a function that is given a sample's key and gives that sample's agent.
        dataset_file: JSON lines with `prompt` (or `messages`) and whatever else is to be carried along.
        run_name: names the folder of the run.
        options: the other fields of `BatchSettings`.

    Raises:
        InvalidArgument: an argument or a row is wrong.
        StateError: there is a run of this name already, or one of another configuration or dataset.
        RunBusy: another runner works on it.
        WorkersFailed: no agent can be made, or the model's server refuses the key.
        ClusterLost: the cluster is gone, or was never there; what is done is on the disk, and the run can be resumed.
        OSError: the disk is full or fails; what is there is whole, and the run can be resumed.
    """
    return BatchRunner(agent, BatchSettings(dataset_file, run_name, **options)).run()


class BatchRunner:
    """Runs an agent over the rows of a file; see `run_batch`.

    Files in the run's folder: `trajectories.jsonl` (ShareGPT), `records/trajectories.jsonl` (everything),
    `statistics.json`, `report.html`, `journal.log`.
    """

    def __init__(self, agent: Any, settings: BatchSettings) -> None:
        if not isinstance(agent, Agent) and not callable(agent):
            raise InvalidArgument("agent", agent, "give an agent, or a function that makes one")
        self.agent, self.settings = agent, settings
        self._signal: signal.Signals | None = None
        self._pool: WorkerPool | None = None

    def run(self) -> BatchResult:
        """Work off what is to be done.

        In the main thread, SIGINT and SIGTERM stop the run: samples under way may end within `grace` seconds.
        """
        settings = self.settings
        with RunLock(settings.path) as lock, self._stoppable():
            dataset = Dataset(Path(settings.dataset_file))
            if settings.reward is not None and settings.engine == "local":  # on a cluster it may be only there
                _check_reward(settings.reward, dataset)
            config = {**to_plain(settings.config, "config"), "agent": _name_of(self.agent)}
            run = _Run(self, dataset, content_hash(config), lock)
            identity = {
                "config": config,
                "dataset": {"fingerprint": dataset.fingerprint, "rows": dataset.rows},
            }
            return run.all(identity)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop the run, as a signal does; from any thread."""
        self._signal = self._signal or number

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers of a run that is under way."""
        return [] if self._pool is None else self._pool.processes

    @property
    def stopped_by(self) -> signal.Signals | None:
        return self._signal

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: FrameType | None) -> None:
            if self._signal is not None and number == signal.SIGINT:
                raise KeyboardInterrupt  # twice: now
            self._signal = signal.Signals(number)

        before: dict[signal.Signals, Any] = {
            number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Run:
    """One run under way."""

    def __init__(self, runner: BatchRunner, dataset: Dataset, config: bytes, lock: RunLock) -> None:
        self.runner, self.settings, self.dataset, self.lock = runner, runner.settings, dataset, lock
        self._config = config
        self.statistics = RunStatistics(self.settings.price)
        rows = dataset.rows if self.settings.max_samples is None else min(dataset.rows, self.settings.max_samples)
        self.total = rows * self.settings.num_samples
        self._began = time.perf_counter()

    def all(self, identity: dict[str, Any]) -> BatchResult:
        settings = self.settings
        store = RunStore(
            settings.path,
            identity,
            lambda: KeySet(sample.key for sample in self._samples()),
            settings.resume,
            settings.force,
            settings.retry_failed,
            lambda record: self.statistics.add(record["metadata"]["summary"]),
        )
        worker = WorkerSettings(
            settings.batch_size, settings.reward, settings.reward_timeout, settings.timeout, settings.keep_tokens
        )
        with contextlib.closing(store):
            for entry in store.failures.values():
                self.statistics.add_set_aside(entry)
            supply = _Supply(
                sample
                for sample in self._samples()
                if sample.key not in store.done and sample.key not in store.set_aside
            )
            restarts = 0
            if not supply.is_over:
                with (
                    contextlib.closing(settings.workers(self.runner.agent)) as workers,
                    WorkerPool(workers, max(1, settings.num_workers), worker) as pool,
                    _Progress(self) as progress,
                ):
                    self.runner._pool = pool
                    self._work(store, pool, supply, progress)
                    restarts = pool.restarts
            return self._end(store, restarts)

    def _samples(self) -> Iterator[Sample]:
        return self.dataset.samples(self._config, self.settings.num_samples, self.settings.max_samples)

    def _work(self, store: RunStore, pool: WorkerPool, supply: _Supply, progress: _Progress) -> None:
        """Hand out samples and take results until all is done, or the run is stopped and its grace is over."""
        deadline = cancelled = None
        while True:
            self.lock.renew()
            now = time.monotonic()
            if self.runner.stopped_by is None:
                pool.give(supply)
            elif deadline is None:
                pool.drain()
                deadline = now + self.settings.grace
            elif cancelled is None and now > deadline:
                pool.cancel()
                cancelled = now + _CANCEL_SECONDS
            self._take(store, pool, list(pool.results(_TICK)))
            progress.show()
            if not pool.under_way and (deadline is not None or (supply.is_over and not pool.waiting)):
                return
            if cancelled is not None and time.monotonic() > cancelled:
                return

    def _take(self, store: RunStore, pool: WorkerPool, results: list[Written | Failed]) -> None:
        """Put what came in on the disk, then count it."""
        written = [result for result in results if isinstance(result, Written)]
        failed = [result for result in results if isinstance(result, Failed)]
        entries, again = [], []
        for failure in failed:
            sample = failure.sample
            sample.attempts = max(sample.attempts, store.attempts.pop(sample.key, 0)) + 1
            told: dict[str, Any] = {"key": sample.key, "error": failure.error}
            if failure.hopeless or sample.attempts >= self.settings.max_attempts:
                told |= {"row": sample.number, "sample": sample.sample, "attempts": sample.attempts}
                entries.append(journal_line("set_aside", **told))
                self.statistics.add_set_aside(told)
            else:
                entries.append(journal_line("failed", attempt=sample.attempts, **told))
                again.append(sample)
            self.statistics.add_failure(failure.error)
        store.commit(written, entries)
        for result in written:
            self.statistics.add(result.summary)
        if self.runner.stopped_by is None:
            for sample in again:
                pool.again(sample)

    def _end(self, store: RunStore, restarts: int) -> BatchResult:
        statistics = self.statistics
        told = {
            "run_name": self.settings.run_name,
            "total": self.total,
            "left": max(0, self.total - statistics.done - statistics.set_aside),
            **statistics.to_dict(),
            "wall_seconds": round(time.perf_counter() - self._began, 3),
            "worker_restarts": restarts,
            "resumed": {
                "done": store.recovery.done,
                "redone": store.recovery.redone,
                "adopted": store.recovery.adopted,
                "dropped": store.recovery.dropped,
                "mended": store.recovery.mended,
                "damages": store.recovery.damages[:100],
            },
        }
        folder = self.settings.path
        _replace(folder / "statistics.json", json.dumps(told, indent=2, ensure_ascii=False, default=str) + "\n")
        _replace(folder / "report.html", report_page(told, {n: v.sample for n, v in statistics.values.items()}))
        return BatchResult(
            folder,
            self.total,
            statistics.done,
            statistics.set_aside,
            self.runner.stopped_by,
            store.recovery,
            told,
        )


class _Supply:
    """Samples one after the other, of which it is known whether there is another one."""

    def __init__(self, samples: Iterator[Sample]) -> None:
        self._samples = samples
        self._next = next(samples, None)

    @property
    def is_over(self) -> bool:
        return self._next is None

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        sample = self._next
        if sample is None:
            raise StopIteration
        self._next = next(self._samples, None)
        return sample


class _Progress:
    """A bar with rate, time left, failures, tokens and cost."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._bar: Any = None

    def __enter__(self) -> Self:
        settings = self._run.settings
        if settings.progress:
            from tqdm import tqdm

            done = self._run.statistics.done + self._run.statistics.set_aside
            self._bar = tqdm(total=self._run.total, initial=done, desc=settings.run_name, unit="sample", disable=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self) -> None:
        if self._bar is None:
            return
        statistics = self._run.statistics
        told: dict[str, Any] = {"failed": statistics.attempts_failed, "tokens": f"{statistics.usage.total_tokens:,}"}
        if statistics.cost is not None:
            told["cost"] = f"${statistics.cost:.2f}"
        rewards = statistics.values["reward"]
        if rewards.count:
            told["reward"] = f"{rewards.total / rewards.count:.3f}"
        self._bar.set_postfix(told, refresh=False)
        self._bar.update(statistics.done + statistics.set_aside - self._bar.n)


def _check_reward(reward: Any, dataset: Dataset) -> None:
    """Refuse a reward before anything is asked, if there is no row that has what it wants.

    Raises:
        InvalidArgument: so it is, or there is no such reward.
    """
    if all(missing(reward, keys) for keys in dataset.keys):
        check_reward(reward, dataset.keys)


def _name_of(agent: Any) -> str:
    """What an agent, or a function that makes one, is called in the configuration."""
    made_by = getattr(agent, "func", agent)  # of a functools.partial
    named = type(made_by) if isinstance(made_by, Agent) or not hasattr(made_by, "__qualname__") else made_by
    return str(named.__qualname__)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text, encoding="utf-8", errors="backslashreplace")  # half a surrogate pair, as JSON escapes it
    draft.replace(path)
