"""A Ray cluster of several node processes on loopback, small enough to share two cores."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Read when Ray is imported; for the tests, `conftest.py` has done so already.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # so that Ray uses loopback, as on those systems
os.environ.setdefault("RAY_raylet_start_wait_time_s", "90")  # a busy machine starts nodes slowly

_STORE = 80 * 2**20
_FAST_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


class RayNodes:
    """A head without cores, so that nothing runs on it, and nodes beside it.

    Args:
        nodes: how many.
        cpus: cores of each, as far as Ray's bookkeeping goes.
    """

    def __init__(self, nodes: int, cpus: int = 1) -> None:
        from ray.cluster_utils import Cluster

        self._cpus = cpus
        head = {"num_cpus": 0, "object_store_memory": _STORE, "node_ip_address": "127.0.0.1"}
        self._cluster = Cluster(initialize_head=True, head_node_args=head | {"_system_config": _FAST_HEALTH_CHECKS})
        self.address: str = self._cluster.address
        for _ in range(nodes):
            self.add_node()

    @property
    def nodes(self) -> list[Any]:
        """The nodes besides the head."""
        return list(self._cluster.worker_nodes)

    def workers(self, name: str = "ray::") -> list[int]:
        """Process ids of this cluster's workers whose name begins so."""
        starters = {process.process.pid for node in self.nodes for process in node.all_processes.get("raylet", ())}
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                with suppress(OSError):  # it ended meanwhile
                    parent = int((process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
                    if parent in starters and (process / "cmdline").read_bytes().startswith(name.encode()):
                        found.append(int(process.name))
        return found

    def add_node(self) -> Any:
        """Start another node; in the main thread, where Ray sets a signal handler."""
        return self._cluster.add_node(
            num_cpus=self._cpus, object_store_memory=_STORE, node_ip_address="127.0.0.1", wait=False
        )

    def kill_node(self, node: Any) -> None:
        """SIGKILL for everything that a node consists of, its workers apart: they notice."""
        _kill(node)
        self._cluster.worker_nodes.discard(node)

    def kill_head(self) -> None:
        _kill(self._cluster.head_node)

    def close(self) -> None:
        for node in [*self.nodes, self._cluster.head_node]:
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)


def _kill(node: Any) -> None:
    for processes in list(node.all_processes.values()):
        for process in processes:
            if process.process.poll() is None:
                process.process.send_signal(signal.SIGKILL)


@contextmanager
def ray_nodes(nodes: int, cpus: int = 1) -> Iterator[RayNodes]:
    """A cluster, with nothing of it left afterwards."""
    on_sigterm = signal.getsignal(signal.SIGTERM)
    cluster = RayNodes(nodes, cpus)
    try:
        yield cluster
    finally:
        cluster.close()
        signal.signal(signal.SIGTERM, on_sigterm)
