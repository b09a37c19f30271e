"""Control groups, where they are found and where they are not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lagentlike.sandbox import cgroups, Limits
from lagentlike.sandbox.cgroups import Controllers
from lagentlike.sandbox.limits import MIB

from .fake_cgroup2 import FakeCgroup2


def proc(folder: Path, groups: str, mounts: str) -> Path:
    folder.mkdir()
    (folder / "cgroup").write_text(groups)
    (folder / "mountinfo").write_text(mounts)
    return folder


def test_groups_of_this_process_and_where_they_are_mounted(tmp_path: Path) -> None:
    own = cgroups._own_groups("4:memory:/a/b\n3:cpu,cpuacct:/c\n0::/user.slice\n")
    assert own == {"memory": "/a/b", "cpu": "/c", "cpuacct": "/c", "": "/user.slice"}
    mounts = cgroups._mounts(
        "25 1 0:22 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
        "26 1 0:23 /docker/x /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        "27 1 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    assert cgroups._path(mounts, own, "memory") == Path("/sys/fs/cgroup/memory/a/b")
    assert cgroups._path(mounts, {"cpu": "/docker/x/y"}, "cpu") == Path("/sys/fs/cgroup/cpu/y")
    assert cgroups._path(mounts, {"cpu": "/elsewhere"}, "cpu") == Path("/sys/fs/cgroup/cpu")
    assert cgroups._path(mounts, own, "") == Path("/sys/fs/cgroup/user.slice")
    assert cgroups._path(mounts, own, "pids") is None


def test_where_there_are_none_each_is_missing_with_a_reason(tmp_path: Path) -> None:
    found = cgroups._find(proc(tmp_path / "proc", "0::/\n", ""))
    assert (found.version, found.parents) == (0, {})
    assert set(found.missing) == {"memory", "pids", "cpu"}
    assert cgroups._find(tmp_path / "nowhere").missing["memory"].startswith("/proc cannot be read")


def test_a_group_that_may_not_be_changed_is_missing(tmp_path: Path) -> None:
    mounts = f"27 1 0:24 / {tmp_path}/none rw - cgroup2 cgroup2 rw\n"
    found = cgroups._find(proc(tmp_path / "proc", "0::/\n", mounts))
    assert found.version == 0
    assert "cannot be used" in found.missing["pids"]


@pytest.mark.skipif(not cgroups.controllers().parents, reason="there are no control groups here")
def test_a_real_group_has_the_limits_and_is_removed() -> None:
    found = cgroups.controllers()
    group = found.make(Limits(memory=64 * MIB, processes=10, cpus=0.5))
    try:
        for folder in group.folders:
            assert folder.is_dir()
            assert folder.name.startswith(f"lagentlike-{os.getpid()}-")
        if found.version == 1:
            assert (found.parents["memory"] / folder.name / "memory.limit_in_bytes").read_text() == f"{64 * MIB}\n"
            assert (found.parents["pids"] / folder.name / "pids.max").read_text() == "12\n", "two are bwrap's own"
            assert (found.parents["cpu"] / folder.name / "cpu.cfs_quota_us").read_text() == "50000\n"
        assert group.oom_kills() == 0
        assert not group.is_full()
    finally:
        assert group.remove()
    assert not any(folder.exists() for folder in group.folders)


@pytest.fixture(params=[True, False], ids=["controllers are there", "controllers are to be asked for"])
def user(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroup2:
    """Version 2 as systemd lays it out for a user, with this process in a scope of theirs."""
    tree = FakeCgroup2(tmp_path / "cgroup", monkeypatch)
    folder = tree.root
    for name in ("user.slice", "user@1000.service", "app.slice", "session.scope"):
        for controller in ("memory", "pids", "cpu") if request.param or name != "session.scope" else ():
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        folder = folder / name
        folder.mkdir()
    tree.put(os.getpid(), str(folder.relative_to(tree.root)))
    return tree


SCOPE = "user.slice/user@1000.service/app.slice/session.scope"


def test_groups_of_version_2_are_made_beside_that_of_this_process(user: FakeCgroup2, tmp_path: Path) -> None:
    found = cgroups._find(user.process(tmp_path / "proc", SCOPE))
    slice_ = user.root / Path(SCOPE).parent
    assert (found.version, found.missing) == (2, {})
    assert found.parents == dict.fromkeys(("memory", "pids", "cpu"), slice_)
    group = found.make(Limits(memory=64 * MIB, processes=10, cpus=0.5))
    (folder,) = group.folders
    assert folder.parent == slice_
    written = ("memory.max", "memory.swap.max", "pids.max", "cpu.max")
    assert [(folder / file).read_text() for file in written] == [f"{64 * MIB}\n", "0\n", "12\n", "50000 100000\n"]
    with subprocess.Popen(["sleep", "60"]) as process:
        group.add(process.pid)
        assert group.members() == [process.pid]
        assert not group.remove(), "a process is in it"
        process.kill()
    user.end(process.pid)
    assert group.oom_kills() == 0
    assert not group.is_full()
    assert group.remove()
    assert sorted(one.name for one in slice_.iterdir() if one.is_dir()) == ["session.scope"]


def test_kills_and_fullness_are_read_from_version_2(user: FakeCgroup2, tmp_path: Path) -> None:
    group = cgroups._find(user.process(tmp_path / "proc", SCOPE)).make(Limits(processes=10))
    (folder,) = group.folders
    here = str(folder.relative_to(user.root))
    user.tell(here, "memory.events", "oom 3\noom_kill 2\noom_group_kill 0\n")
    user.tell(here, "pids.current", "10\n")
    assert group.oom_kills() == 2
    assert group.is_full()


def test_what_a_slice_lacks_is_missing_with_a_reason(user: FakeCgroup2, tmp_path: Path) -> None:
    (user.root / "system.slice").mkdir()
    (user.root / "system.slice" / "own.service").mkdir()
    user.put(os.getpid(), "system.slice/own.service")
    user.tell("system.slice", "cgroup.controllers", "memory pids\n")
    found = cgroups._find(user.process(tmp_path / "proc", "system.slice/own.service"))
    assert set(found.parents) == {"memory", "pids"}
    assert "cannot be used" in found.missing["cpu"]


def test_in_a_container_this_process_makes_room_for_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no group above, and one with processes cannot have controllers below: they move down."""
    tree = FakeCgroup2(tmp_path / "cgroup", monkeypatch, namespace=True)
    tree.put(os.getppid(), "")
    tree.put(os.getpid(), "")
    found = cgroups._find(tree.process(tmp_path / "proc", ""))
    assert found.parents == dict.fromkeys(("memory", "pids", "cpu"), tree.root)
    moved = (tree.root / f"lagentlike-own-{os.getpid()}" / "cgroup.procs").read_text().split()
    assert sorted(moved) == sorted([str(os.getpid()), str(os.getppid())])
    assert found.make(Limits()).remove()


def test_processes_of_others_in_a_container_are_left_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = FakeCgroup2(tmp_path / "cgroup", monkeypatch, namespace=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        tree.put(os.getpid(), "")
        tree.put(other.pid, "")
        found = cgroups._find(tree.process(tmp_path / "proc", ""))
        other.kill()
    assert found.parents == {}
    assert not [one for one in tree.root.iterdir() if one.is_dir()]


def test_settings_of_version_2() -> None:
    limits = Limits(memory=64 * MIB, processes=10, cpus=0.5)
    written = {file: value for make in cgroups._SETTINGS[2].values() for file, value in make(limits)}
    assert written == {"memory.max": 64 * MIB, "memory.swap.max": 0, "pids.max": 12, "cpu.max": "50000 100000"}


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    ended = os.fork()
    if ended == 0:
        os._exit(0)
    os.waitpid(ended, 0)
    for owner in (ended, os.getpid()):
        (tmp_path / f"lagentlike-{owner}-1").mkdir()
    (tmp_path / "other").mkdir()
    Controllers(2, {"pids": tmp_path}).sweep()
    assert sorted(folder.name for folder in tmp_path.iterdir()) == sorted([f"lagentlike-{os.getpid()}-1", "other"])
