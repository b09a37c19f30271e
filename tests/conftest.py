"""Run coroutine tests, keep the suite on loopback and look for leaks."""

from __future__ import annotations

import asyncio
import gc
import inspect
import ipaddress
import os
import socket
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from .memory.servers import _postgres, _redis, store_kind, store_place  # noqa: F401  # fixtures

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # so that Ray uses loopback, as on those systems

SETTLE_SECONDS = 5.0  # how long threads and descriptors of a finished test may take to go


class OffMachineError(RuntimeError):
    """A test tried to reach an address that is not on this machine."""


def _forbid_off_machine_sockets(event: str, args: tuple[Any, ...]) -> None:
    """Audit hook: names and addresses other than loopback raise, whoever asks."""
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event in ("socket.connect", "socket.sendto"):
        address = args[1]
        if not isinstance(address, tuple):
            return  # a Unix socket's path
        host = address[0]
    else:
        return
    if not _is_local(host):
        raise OffMachineError(f"{event} of host {host!r}: tests use loopback addresses only")


def _is_local(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if not name or name in ("localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


sys.addaudithook(_forbid_off_machine_sockets)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test in a fresh event loop; a test with `no_leaks` must leave no task behind in it."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    coroutine = pyfuncitem.obj(**arguments)
    if "no_leaks" in pyfuncitem.fixturenames:
        coroutine = _leaving_no_tasks(coroutine)
    asyncio.run(coroutine, debug=False)
    return True


async def _leaving_no_tasks(coroutine: Coroutine[Any, Any, None]) -> None:
    before = asyncio.all_tasks()
    await coroutine
    for _ in range(10):  # callbacks of what the test closed
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if not task.done()]
    assert not left, f"{len(left)} tasks left running: {left}"


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail the test when it leaves a thread or an open descriptor (and, in an async test, a task) behind.

    Process-wide service threads may stay: daemons whose name starts with `lagentlike-`.
    """
    gc.collect()
    threads, descriptors = set(threading.enumerate()), _open_descriptors()
    yield
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := _leaks(threads, descriptors)) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.05)
    assert not left, f"left behind: {left}"


def _leaks(threads: set[threading.Thread], descriptors: dict[int, str]) -> list[str]:
    new_threads = [thread for thread in threading.enumerate() if thread not in threads and not _is_service(thread)]
    now = _open_descriptors()
    surplus = len(now) - len(descriptors)  # numbers are reused, so what counts is how many more there are
    if _service_threads() - {thread.name for thread in threads}:
        surplus = 0  # a service started during the test holds its own descriptors
    new_descriptors = [f"{number} -> {target}" for number, target in now.items() if descriptors.get(number) != target]
    return [repr(thread) for thread in new_threads] + (new_descriptors if surplus > 0 else [])


def _is_service(thread: threading.Thread) -> bool:
    return thread.daemon and thread.name.startswith("lagentlike-")


def _service_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if _is_service(thread)}


def _open_descriptors() -> dict[int, str]:
    root = Path("/proc/self/fd")
    if not root.is_dir():
        return {}
    opened = {}
    for entry in root.iterdir():
        try:
            opened[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue  # the descriptor of this very listing
    return opened


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may depend on a key of whoever runs it."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
