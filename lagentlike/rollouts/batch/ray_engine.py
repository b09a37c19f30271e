"""Workers that are actors of a Ray cluster, on whichever of its machines have room."""

from __future__ import annotations

import math
import multiprocessing
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...agents.agent import Agent
from ...cluster import Cluster, Ending, ending_of, ROOM_AFTER
from ...errors import InvalidArgument
from .worker import work, WorkerSettings

__all__ = ["RayEngine"]


@dataclass(frozen=True)
class RayEngine:
    """Where the workers of a run are: actors of a Ray cluster.

    Attributes:
        address: `host:port` of the cluster's head; `"auto"` for the cluster that this machine is in; `"local"` for one
            that is started here, for this run alone; None for `"auto"` if there is one, else `"local"`.
        num_cpus: cores that are set aside for each worker.
        num_gpus: GPUs that are set aside for each worker; parts of one are allowed.
        resources: other things that a worker needs of its machine, by Ray's names for them.
        runtime_env: what Ray is to prepare on the machines (`working_dir`, `pip`, `env_vars` …).
    """

    address: str | None = None
    num_cpus: float = 1
    num_gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("num_cpus", "num_gpus"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise InvalidArgument(name, value, "give how many each worker needs")

    def open(self, source: Any) -> RayWorkers:
        """Connect to the cluster.

        Args:
            source: what is called in each worker to get an agent.

        Raises:
            MissingExtra: Ray is not installed.
            ClusterLost: there is no cluster at the address.
        """
        if isinstance(source, Agent):
            raise InvalidArgument("agent", source, "an agent stays in this process: give a function that makes agents")
        return RayWorkers(self, source)


class RayWorkers:
    """Starts actors that run samples."""

    def __init__(self, engine: RayEngine, source: Any) -> None:
        self._engine, self._source = engine, source
        self._cluster = Cluster(engine.address)
        self._due = time.monotonic() + ROOM_AFTER
        self._begun = False

    def start(self, settings: WorkerSettings) -> _RayLink:
        engine = self._engine
        actor = self._cluster.ray.remote(_RayWorker).options(
            num_cpus=engine.num_cpus,
            num_gpus=engine.num_gpus,
            resources=dict(engine.resources) or None,
            runtime_env=None if engine.runtime_env is None else dict(engine.runtime_env),
            scheduling_strategy="SPREAD",
            max_concurrency=2,  # one that waits for results, one that brings samples
        )
        return _RayLink(self, self._cluster, actor.remote(self._source, settings))

    def check(self) -> None:
        self._cluster.check()
        if not self._begun and time.monotonic() > self._due:
            self._due = math.inf
            engine = self._engine
            self._cluster.say_room({"CPU": engine.num_cpus, "GPU": engine.num_gpus, **engine.resources})

    def begun(self) -> None:
        """A worker was heard of."""
        self._begun = True

    def close(self) -> None:
        self._cluster.close()


class _RayWorker:
    """The actor: a thread of it works, and the runner's calls are its pipe."""

    def __init__(self, source: Any, settings: WorkerSettings) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        threading.Thread(target=work, args=(theirs, source, settings, False), daemon=True).start()

    def send(self, message: bytes) -> None:
        """Tell the worker something."""
        self._connection.send_bytes(message)

    def receive(self) -> bytes | None:
        """What the worker says next; None when it has ended."""
        try:
            return self._connection.recv_bytes()
        except (EOFError, OSError):
            return None


class _RayLink:
    pid = None

    def __init__(self, workers: RayWorkers, cluster: Cluster, actor: Any) -> None:
        self._workers, self._cluster, self._actor = workers, cluster, actor
        self._over = threading.Event()
        self._ending = Ending("it came to its end", is_blameless=False)

    def send_bytes(self, message: bytes, /) -> None:
        self._actor.send.remote(message)  # whether it is gone, `recv_bytes` says

    def recv_bytes(self) -> bytes:
        ray = self._cluster.ray
        message: bytes | None = None
        try:
            message = ray.get(self._actor.receive.remote())
        except ray.exceptions.RayError as error:
            self._ending = ending_of(error)
        if message is None:
            self._over.set()
            self._cluster.kill(self._actor)  # it may live on, where only the way to it is lost
            raise EOFError
        self._workers.begun()
        return message

    def ending(self) -> Ending:
        return self._ending

    def end(self, seconds: float) -> bool:
        if not self._over.wait(seconds):
            self._cluster.kill(self._actor)
        return self._over.wait(seconds)

    def close(self) -> None:
        """The actor is gone already."""
