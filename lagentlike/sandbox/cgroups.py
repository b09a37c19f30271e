"""Limits on all processes of a sandbox together, by the kernel's control groups where they can be made."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .limits import Limits
from .proc import ancestors

__all__ = ["Cgroup", "Controllers", "controllers", "group_prefix"]

_PREFIX = "lagentlike-"
_PERIOD = 100_000
_OWN = "own"
"""The group of this process itself, where it had to leave another one."""

_OWN_PROCESSES = 2
"""Processes of bwrap that are in the group too."""


@dataclass
class Controllers:
    """Where groups can be made here.

    Attributes:
        version: of the hierarchy: 1, 2, or 0 where there is none.
        parents: for `memory`, `pids` and `cpu`, the group below which ours are made.
        missing: for each of these that is not there, why.
    """

    version: int = 0
    parents: Mapping[str, Path] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def make(self, limits: Limits) -> Cgroup:
        """A new group with limits, as far as there are controllers."""
        name = f"{group_prefix()}{next(_numbers)}"
        folders = [parent / name for parent in dict.fromkeys(self.parents.values())]
        group = Cgroup(folders, self.parents.get("memory", Path()) / name if "memory" in self.parents else None)
        try:
            for folder in folders:
                folder.mkdir()
            for controller, parent in self.parents.items():
                for file, value in _SETTINGS[self.version][controller](limits):
                    path = parent / name / file
                    if path.exists():
                        path.write_text(str(value))
        except OSError:
            group.remove()
            raise
        return group

    def sweep(self) -> None:
        """Remove what processes left behind that were killed."""
        for parent in set(self.parents.values()):
            for folder in parent.glob(f"{_PREFIX}*"):
                owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
                if owner.isdigit() and not Path("/proc", owner).exists():
                    _remove(folder)


@dataclass
class Cgroup:
    """The group of one sandbox."""

    folders: list[Path]
    _memory: Path | None

    def add(self, pid: int) -> None:
        """Put a process, and all that it will start, into the group."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def oom_kills(self) -> int:
        """How often the kernel killed a process of the group for want of memory."""
        if self._memory is None:
            return 0
        for file in ("memory.events", "memory.oom_control"):
            with suppress(OSError):
                for line in (self._memory / file).read_text().splitlines():
                    name, _, count = line.partition(" ")
                    if name == "oom_kill":
                        return int(count)
        return 0

    def members(self) -> list[int]:
        """The processes of the group."""
        for folder in self.folders:
            with suppress(OSError):
                return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
        return []

    def is_full(self) -> bool:
        """Whether hardly another process can be started."""
        for folder in self.folders:
            with suppress(OSError, ValueError):
                now, most = ((folder / f"pids.{name}").read_text() for name in ("current", "max"))
                return int(now) >= int(most) - _OWN_PROCESSES
        return False

    def remove(self) -> bool:
        """Remove the group; whether it is gone: not while processes are in it."""
        gone = [_remove(folder) for folder in self.folders]
        return all(gone)


def group_prefix() -> str:
    """How the names of this process's groups begin."""
    return f"{_PREFIX}{os.getpid()}-"


def controllers() -> Controllers:
    """What can be used here; looked for once."""
    if not _found:
        _found.append(_find())
        _found[0].sweep()
    return _found[0]


_found: list[Controllers] = []
_numbers = itertools.count()
os.register_at_fork(after_in_child=_found.clear)


def _memory_1(limits: Limits) -> list[tuple[str, int | str]]:
    return [("memory.limit_in_bytes", limits.memory), ("memory.memsw.limit_in_bytes", limits.memory)]


def _memory_2(limits: Limits) -> list[tuple[str, int | str]]:
    return [("memory.max", limits.memory), ("memory.swap.max", 0)]


def _pids(limits: Limits) -> list[tuple[str, int | str]]:
    return [("pids.max", limits.processes + _OWN_PROCESSES)]


def _cpu_1(limits: Limits) -> list[tuple[str, int | str]]:
    return [("cpu.cfs_period_us", _PERIOD), ("cpu.cfs_quota_us", max(int(limits.cpus * _PERIOD), 1000))]


def _cpu_2(limits: Limits) -> list[tuple[str, int | str]]:
    return [("cpu.max", f"{max(int(limits.cpus * _PERIOD), 1000)} {_PERIOD}")]


_SETTINGS = {
    0: {},
    1: {"memory": _memory_1, "pids": _pids, "cpu": _cpu_1},
    2: {"memory": _memory_2, "pids": _pids, "cpu": _cpu_2},
}


def _find(proc: Path = Path("/proc/self")) -> Controllers:
    try:
        own = _own_groups((proc / "cgroup").read_text())
        mounts = _mounts((proc / "mountinfo").read_text())
    except OSError as error:
        return Controllers(missing=dict.fromkeys(("memory", "pids", "cpu"), f"/proc cannot be read: {error}"))
    if "memory" in own or "pids" in own:
        return _usable(1, {name: [_path(mounts, own, name)] for name in ("memory", "pids", "cpu")})
    here = _path(mounts, own, "")
    if here is not None and own[""] == "/":  # the root, and in a container that of its namespace
        _step_down(here)
    around = [] if here is None else [here.parent] if _is_occupied(here) else [here, here.parent]
    return _usable(2, dict.fromkeys(("memory", "pids", "cpu"), around))


def _step_down(here: Path) -> None:
    """Leave a group of version 2 to which controllers cannot be given because of this process and those above it.

    So it is in a container, where there is no group above. Where other processes are in the group, it stays as it is.
    """
    try:
        members = {int(pid) for pid in (here / "cgroup.procs").read_text().split()}
        if not _is_occupied(here) or members - {os.getpid(), *ancestors()}:
            return
        below = here / f"{_PREFIX}{_OWN}-{os.getpid()}"  # which the keeper does not take for one of ours
        below.mkdir(exist_ok=True)
        for pid in members:
            (below / "cgroup.procs").write_text(str(pid))
    except OSError:
        return  # it may not be changed, as is found out in a moment


def _is_occupied(here: Path) -> bool:
    """Whether a group of version 2 has processes, and so cannot have groups with all controllers below.

    Some controllers could be given to it, but no process could be put into what is below it then. The root of all
    groups, which has no type, may have both.
    """
    try:
        return (here / "cgroup.type").exists() and (here / "cgroup.procs").read_text() != ""
    except OSError:
        return False


def _usable(version: int, candidates: Mapping[str, Sequence[Path | None]]) -> Controllers:
    """Those of the candidates below which a group can be made and limited."""
    parents: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for name, paths in candidates.items():
        missing[name] = "the kernel has no such controller here"
        for path in paths:
            if path is None:
                continue
            problem = _try(version, name, path)
            if not problem:
                parents[name] = path
                del missing[name]
                break
            missing[name] = problem
    return Controllers(version if parents else 0, parents, missing)


def _try(version: int, name: str, parent: Path) -> str:
    """Why no group can be made and limited there; empty if one can."""
    probe = parent / f"{group_prefix()}probe"
    try:
        if version == 2 and name not in (parent / "cgroup.subtree_control").read_text().split():
            (parent / "cgroup.subtree_control").write_text(f"+{name}")
        probe.mkdir(exist_ok=True)
        for file, value in _SETTINGS[version][name](Limits()):
            if (probe / file).exists():
                (probe / file).write_text(str(value))
            elif "memsw" not in file and "swap" not in file:
                return f"{probe / file} is missing"
        if version == 2:  # whether a process may be moved there from where it is
            os.close(os.open(parent / "cgroup.procs", os.O_WRONLY))
    except OSError as error:
        return f"{parent} cannot be used: {error.strerror}"
    finally:
        _remove(probe)
    return ""


def _remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return not folder.exists()
    return True


def _own_groups(text: str) -> dict[str, str]:
    """This process's group for each controller; that of version 2 under ""."""
    groups = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        groups.update(dict.fromkeys(names.split(","), path))
    return groups


def _mounts(text: str) -> dict[str, tuple[Path, str]]:
    """For each controller, where its hierarchy is mounted, and which group is its root there."""
    mounts = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, point = before.split(" ")[3:5]
        if kind == "cgroup2":
            mounts[""] = Path(point), root
        elif kind == "cgroup":
            for name in options.split(" ")[-1].split(","):
                mounts[name] = Path(point), root
    return mounts


def _path(mounts: Mapping[str, tuple[Path, str]], own: Mapping[str, str], name: str) -> Path | None:
    """The folder of this process's group for a controller."""
    if name not in mounts or name not in own:
        return None
    point, root = mounts[name]
    inner = os.path.relpath(own[name], root)
    return point if inner.startswith("..") else point / inner
