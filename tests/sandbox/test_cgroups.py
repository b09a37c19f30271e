"""Control groups, where they are found and where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lagentlike.sandbox import cgroups, Limits
from lagentlike.sandbox.cgroups import Controllers
from lagentlike.sandbox.limits import MIB


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
