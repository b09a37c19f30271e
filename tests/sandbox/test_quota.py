"""The watch over what is written to disk: what it counts, and that nothing keeps it from looking."""

from __future__ import annotations

import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lagentlike.sandbox import quota, UnsafeLocal
from lagentlike.sandbox.limits import MIB
from lagentlike.sandbox.process import Process


@pytest.fixture
def process() -> Iterator[Process]:
    with UnsafeLocal().start(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_a_file_of_several_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(bytes(MIB))
    alone = quota.size_of([tmp_path])
    (tmp_path / "folder").mkdir()
    for number in range(10):
        (tmp_path / "folder" / str(number)).hardlink_to(tmp_path / "one")
    linked = quota.size_of([tmp_path])
    assert alone is not None
    assert linked is not None
    assert linked.size < alone.size + MIB
    assert linked.entries == alone.entries + 11


def test_what_is_started_while_the_others_are_let_write_again_is_let_too(
    process: Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def members() -> list[int]:
        now = [process.pid, *(child.pid for child in children)]
        limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        if not process.disk_full and limits[0] == 0:  # it forks right behind the look at what there is
            children.append(subprocess.Popen(["sleep", "600"]))
            resource.prlimit(children[0].pid, resource.RLIMIT_FSIZE, limits)
        return now

    monkeypatch.setattr(process, "members", members)
    quota.watch(process, [tmp_path], 4 * MIB)
    (tmp_path / "much").write_bytes(bytes(3 * MIB + 65536))
    _await(lambda: resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[0] == 0)
    assert process.disk_full
    (tmp_path / "much").unlink()
    _await(lambda: bool(children))
    try:
        for pid in (process.pid, children[0].pid):
            _await(lambda pid=pid: resource.prlimit(pid, resource.RLIMIT_FSIZE)[0] != 0)  # type: ignore[misc]
    finally:
        children[0].kill()
        children[0].wait()


def test_it_goes_on_when_no_thread_could_be_started(
    process: Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start = threading.Thread.start
    refused: list[str] = []

    def starts_later(thread: threading.Thread) -> None:
        if thread.name.startswith("lagentlike-quota") and refused.count(thread.name) < 3:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(quota, "_watcher", quota._Watcher())
    monkeypatch.setattr(threading.Thread, "start", starts_later)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="new thread"):
            quota.watch(process, [tmp_path], 4 * MIB)
    quota.watch(process, [tmp_path], 4 * MIB)
    (tmp_path / "much").write_bytes(bytes(3 * MIB + 65536))
    _await(lambda: process.disk_full)
    assert refused.count("lagentlike-quota-look") == 3


def _await(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()
