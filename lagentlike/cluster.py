"""Ray as this package uses it: connected to where it is needed, and watched, so that its loss is an error."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import Any

from .errors import ClusterLost, InvalidArgument, MissingExtra

__all__ = ["Cluster", "ray_module"]

LOST_AFTER = 20.0
"""Seconds without an answer from a cluster's head after which it counts as lost.

Ray itself ends this very process after 60 (`RAY_gcs_rpc_server_reconnect_timeout_s`), in which nobody could say why.
"""

_LOOK_EVERY = 2.0


def ray_module() -> Any:
    """The package `ray`.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error
    return ray


class Cluster:
    """This process's connection to a Ray cluster.

    One that is there already (of `ray.init`) is used, and left as it is; otherwise one is made, and closed by `close`.

    Args:
        address: `host:port` of a cluster's head, or `"auto"` for the cluster of this machine; None for the one that
            Ray's own settings name, or else one that is started here for this process alone.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterLost: there is no cluster at the address.
    """

    def __init__(self, address: str | None = None) -> None:
        if address is not None and (not isinstance(address, str) or "://" in address):
            raise InvalidArgument(
                "address",
                address,
                "give host:port of the head and run this on a machine of the cluster, such as with `ray job submit`",
            )
        self.ray = ray_module()
        self._is_own = not self.ray.is_initialized()
        if self._is_own:
            _connect(self.ray, address)
        host, _, port = self.ray.get_runtime_context().gcs_address.rpartition(":")
        self._head = (host.strip("[]"), int(port))
        self._heard = time.monotonic()
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="lagentlike-ray-watch", daemon=True).start()

    def check(self) -> None:
        """Do nothing while the cluster is there.

        Raises:
            ClusterLost: its head has not been there for a while.
        """
        silent = time.monotonic() - self._heard
        if silent > LOST_AFTER:
            where = "{}:{}".format(*self._head)
            raise ClusterLost(f"the head of the Ray cluster at {where} has been gone for {silent:.0f} s")

    def close(self) -> None:
        """Give the connection up, if it was made here; actors that this process started end."""
        if self._over.is_set():
            return
        self._over.set()
        if self._is_own:
            self.ray.shutdown()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            try:
                socket.create_connection(self._head, timeout=_LOOK_EVERY).close()
            except OSError:
                continue
            self._heard = time.monotonic()


def _connect(ray: Any, address: str | None) -> None:
    if address is not None and address != "auto":
        _check_there(address)  # Ray itself would try for minutes
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # where a cluster is started, it does not phone home
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="warning")
    except (ConnectionError, RuntimeError) as error:
        raise ClusterLost(f"no Ray cluster answers at address={address!r}: {error}") from error
    finally:
        if in_main_thread and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray sets one that exits, past whoever wants to stop in good order


def _check_there(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except ValueError:
        raise InvalidArgument("address", address, "give host:port of the cluster's head, or 'auto'") from None
    except OSError as error:
        raise ClusterLost(f"no Ray cluster answers at address={address!r}: {error}") from error
