"""PostgreSQL and Redis for the tests: servers of their own, on a socket in a temporary directory; places for stores."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lagentlike.memory import open_store

__all__ = ["postgres_server", "redis_server", "store_kind", "store_place"]

_DEADLINE = 60.0


@contextmanager
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL server; the test is skipped where there is none."""
    pytest.importorskip("asyncpg")
    initdb = _program("initdb", "/usr/lib/postgresql/*/bin/initdb").resolve()  # the other programs are beside it
    with _folder() as folder:
        user = _unprivileged(folder)
        options: list[str | Path] = [
            "-D",
            folder / "data",
            "-U",
            "tester",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]
        subprocess.run([*user, initdb, *options], check=True, capture_output=True, cwd=folder)
        server: list[str | Path] = [
            initdb.with_name("postgres"),
            "-D",
            folder / "data",
            "-k",
            folder,
            "-c",
            "listen_addresses=",
        ]
        ready: list[str | Path] = [initdb.with_name("pg_isready"), "-q", "-h", folder]
        with _running([*user, *server, "-c", "fsync=off"], folder, lambda: subprocess.run(ready).returncode == 0):
            yield f"postgresql://tester@/postgres?host={folder}"


@contextmanager
def redis_server() -> Iterator[str]:
    """The address of a Redis server; the test is skipped where there is none."""
    pytest.importorskip("redis")
    program = _program("redis-server")
    with _folder() as folder:
        path = folder / "redis.sock"
        command: list[str | Path] = [program, "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        with _running(command, folder, lambda: _listens(path)):
            yield f"unix://{path}"


@pytest.fixture(scope="session")
def _postgres() -> Iterator[str]:
    with postgres_server() as address:
        yield address


@pytest.fixture(scope="session")
def _redis() -> Iterator[str]:
    with redis_server() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of store in turn."""
    kind: str = request.param
    return kind


@pytest.fixture
def store_place(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store of the kind is, with no session in it."""
    if store_kind == "sqlite":
        return str(tmp_path / "sessions.db")
    place: str = request.getfixturevalue(f"_{store_kind}")
    store = open_store(place).blocking
    for session_id in store.session_ids():
        store.delete(session_id)
    store.close()
    return place


def _program(name: str, elsewhere: str = "") -> Path:
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    others = sorted(Path("/").glob(elsewhere.lstrip("/"))) if elsewhere else []
    if not others:
        pytest.skip(f"{name} is not installed")
    return others[-1]


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder whose name is short enough for the path of a socket."""
    path = Path(tempfile.mkdtemp(prefix="store-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _unprivileged(folder: Path) -> list[str | Path]:
    """What makes a command run as somebody whom PostgreSQL runs for: root it refuses."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--"]


def _listens(path: Path) -> bool:
    """Whether a connection is taken; the socket is there a moment before."""
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) == 0


@contextmanager
def _running(command: list[str | Path], folder: Path, is_ready: Callable[[], bool]) -> Iterator[None]:
    log = Path(tempfile.mkstemp(prefix="store-", suffix=".log")[1])
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=folder)
    try:
        deadline = time.monotonic() + _DEADLINE
        while not is_ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGINT)  # at SIGTERM, PostgreSQL waits for whoever is still connected
        process.wait(timeout=_DEADLINE)
        log.unlink()
