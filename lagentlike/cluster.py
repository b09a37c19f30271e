"""Ray as this package uses it: connected to where it is needed, and watched, so that its loss is an error."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from .errors import ClusterLost, InvalidArgument, MissingExtra

__all__ = ["Cluster", "Ending", "ending_of", "ray_module"]

logger = logging.getLogger(__name__)

LOST_AFTER = 20.0
"""Seconds without an answer from a cluster's head after which it counts as lost.

Ray itself ends this very process after 60 (`RAY_gcs_rpc_server_reconnect_timeout_s`), in which nobody could say why.
"""

ROOM_AFTER = 30.0
"""Seconds without room on a cluster after which that is said."""

_LOOK_EVERY = 2.0

_WORDS = ("auto", "local")


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


class Ending(NamedTuple):
    """How a process ended, and whether that is known to be no fault of what it ran."""

    how: str
    is_blameless: bool


class Cluster:
    """This process's connection to a Ray cluster.

    One that is there already (of `ray.init`) is used, and left as it is; otherwise one is made, and closed by `close`.

    Args:
        address: `host:port` of a cluster's head; `"auto"` for the cluster that this machine is in; `"local"` for one
            that is started here, for this process alone; None for `"auto"` if there is one, else `"local"`.

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
        self._is_open = True
        with _guard:
            if not _connection.users or not self.ray.is_initialized():
                _connection.open(self.ray, address)
            elif address not in (None, *_WORDS, _connection.head):
                cure = f"this process is connected to the cluster at {_connection.head} already"
                raise InvalidArgument("address", address, cure)
            _connection.users += 1

    def check(self) -> None:
        """Do nothing while the cluster is there.

        Raises:
            ClusterLost: its head has not been there for a while.
        """
        silent = time.monotonic() - _connection.heard
        if silent > LOST_AFTER:
            raise ClusterLost(f"the head of the Ray cluster at {_connection.head} has been gone for {silent:.0f} s")

    def kill(self, actor: Any) -> None:
        """End an actor, if the cluster is there: without its head one would wait for a minute."""
        if self.ray.is_initialized() and time.monotonic() - _connection.heard < 3 * _LOOK_EVERY:
            self.ray.kill(actor)

    def say_room(self, wanted: Mapping[str, float]) -> None:
        """Warn that what should have begun waits for room."""
        has = self.ray.cluster_resources()
        logger.warning(
            "nothing has begun in %.0f s on the Ray cluster: it has %s, wanted is %s", ROOM_AFTER, has, wanted
        )

    def close(self) -> None:
        """Give the connection up; the last one who has one that was made here closes it, and all its actors end."""
        with _guard:
            if self._is_open:
                self._is_open = False
                _connection.users -= 1
                if not _connection.users:
                    _connection.close(self.ray)


def ending_of(error: Exception) -> Ending:
    """How an actor ended, from the error that Ray raises for a call of it."""
    text = str(error)
    told = re.search(r"Worker exit detail: ([^.\n]*)", text) or re.search(r"(The actor \w+ because [^.\n]*)", text)
    how = told[1] if told else (text.strip() or type(error).__name__).splitlines()[-1]
    lost_node = "its node has died" in text or "Unavailable" in type(error).__name__
    return Ending(how[:200], is_blameless=lost_node or bool(getattr(error, "preempted", False)))


class _Connection:
    """What a process has one of.

    Attributes:
        head: where the cluster's head is.
        heard: when that last answered.
        users: how many `Cluster`s there are.
    """

    head = ""
    heard = 0.0
    users = 0
    _is_own = False
    _over = threading.Event()

    def open(self, ray: Any, address: str | None) -> None:
        self._over.set()  # of one that was closed past us
        self.users = 0
        self._is_own = not ray.is_initialized()
        if self._is_own:
            _connect(ray, address)
        self.head = ray.get_runtime_context().gcs_address
        self.heard = time.monotonic()
        self._over = threading.Event()
        threading.Thread(target=self._watch, args=(self._over,), name="lagentlike-ray-watch", daemon=True).start()

    def close(self, ray: Any) -> None:
        self._over.set()
        if self._is_own:
            ray.shutdown()

    def _watch(self, over: threading.Event) -> None:
        host, _, port = self.head.rpartition(":")
        while not over.wait(_LOOK_EVERY):
            with contextlib.suppress(OSError):
                socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_EVERY).close()
                self.heard = time.monotonic()


_connection = _Connection()
_guard = threading.Lock()


def _connect(ray: Any, address: str | None) -> None:
    if address is not None and address not in _WORDS:
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
        raise InvalidArgument("address", address, "give host:port of the cluster's head, 'auto', or 'local'") from None
    except OSError as error:
        raise ClusterLost(f"no Ray cluster answers at address={address!r}: {error}") from error
