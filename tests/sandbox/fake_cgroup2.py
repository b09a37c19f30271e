"""A tree of directories that behaves as control groups of version 2 do, for machines that have others.

What is made, written and removed below its root goes through the rules of the kernel's `cgroup-v2.rst`; nothing else is
touched. `tests/sandbox/test_cgroups.py` was run against a real kernel too.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

__all__ = ["FakeCgroup2"]

FILES = {
    "memory": {"memory.max": "max\n", "memory.swap.max": "max\n", "memory.events": "low 0\nmax 0\noom 0\noom_kill 0\n"},
    "pids": {"pids.max": "max\n", "pids.current": "0\n"},
    "cpu": {"cpu.max": "max 100000\n"},
}

THREADED = ("pids", "cpu")
"""Controllers that a group with processes can be given; then no process can be put into the groups below it."""


class FakeCgroup2:
    """The tree.

    Args:
        root: where it is; it is the whole hierarchy, whose root alone may have processes and controllers, unless it is
            that of a cgroup namespace.
        patch: what puts it in the place of the kernel.
        namespace: whether the root is that of a cgroup namespace, as in a container.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, *, namespace: bool = False) -> None:
        self.root = root
        self._namespace = namespace
        self._mkdir, self._rmdir, self._write = os.mkdir, os.rmdir, Path.write_text
        root.mkdir()
        self._fill(root, " ".join(FILES))
        patch.setattr(os, "mkdir", self._make)
        patch.setattr(os, "rmdir", self._remove)
        tree = self
        patch.setattr(Path, "write_text", lambda path, text, *rest, **more: tree._written(path, text, *rest, **more))

    def tell(self, group: str, file: str, content: str) -> None:
        """Have a file say something, as the kernel does."""
        self._write(self.root / group / file, content)

    def end(self, pid: int) -> None:
        """Take a process out of its group."""
        for procs in self.root.rglob("cgroup.procs"):
            left = [other for other in procs.read_text().split() if other != str(pid)]
            self._write(procs, "".join(f"{one}\n" for one in left))

    def put(self, pid: int, group: str) -> None:
        """Put a process into a group, without any rules."""
        self.end(pid)
        procs = self.root / group / "cgroup.procs"
        self._write(procs, f"{procs.read_text()}{pid}\n")

    def process(self, folder: Path, group: str) -> Path:
        """A `/proc/self` of a process in a group."""
        folder.mkdir()
        self._write(folder / "cgroup", f"0::/{group}\n")
        self._write(folder / "mountinfo", f"27 1 0:24 / {self.root} rw - cgroup2 cgroup2 rw,nsdelegate\n")
        return folder

    def _fill(self, folder: Path, available: str) -> None:
        self._write(folder / "cgroup.controllers", f"{available}\n")
        for name in ("cgroup.procs", "cgroup.subtree_control"):
            self._write(folder / name, "")
        if folder != self.root or self._namespace:
            self._write(folder / "cgroup.type", "domain\n")
        if folder != self.root:
            self._enable(folder, available.split())

    def _enable(self, folder: Path, names: list[str]) -> None:
        for name in names:
            for file, content in FILES[name].items():
                self._write(folder / file, content)

    def _make(self, path: Any, mode: int = 0o777, **more: Any) -> None:
        self._mkdir(path, mode, **more)
        folder = Path(path)
        if self.root in folder.parents:
            self._fill(folder, (folder.parent / "cgroup.subtree_control").read_text().strip())

    def _remove(self, path: Any, **more: Any) -> None:
        folder = Path(path)
        if self.root not in folder.parents or not folder.is_dir():
            self._rmdir(path, **more)
        elif (folder / "cgroup.procs").read_text() or any(inner.is_dir() for inner in folder.iterdir()):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(folder))
        else:
            for inner in folder.iterdir():
                inner.unlink()
            self._rmdir(path)

    def _written(self, path: Path, text: str, *rest: Any, **more: Any) -> int:
        if self.root not in path.parents:
            return self._write(path, text, *rest, **more)
        if not path.exists():  # nobody but the kernel makes files here
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        group = path.parent
        exempt = group == self.root and not self._namespace
        if path.name == "cgroup.subtree_control":
            wanted = text.removeprefix("+")
            if wanted not in (group / "cgroup.controllers").read_text().split():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            occupied = (group / "cgroup.procs").read_text() and not exempt
            if occupied and wanted not in THREADED:  # "no internal processes"
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
            self._write(path, " ".join([*path.read_text().split(), wanted]))
            for child in group.iterdir():
                if child.is_dir():
                    self._enable(child, [wanted])
                    self._write(child / "cgroup.controllers", path.read_text())
        elif path.name == "cgroup.procs":
            os.kill(int(text), 0)
            if group != self.root and self._is_threaded(group.parent):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(path))  # "domain invalid"
            if (group / "cgroup.subtree_control").read_text() and not exempt:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
            self.put(int(text), str(group.relative_to(self.root)))
        elif not all(word == "max" or word.isdigit() for word in text.split()):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        else:
            self._write(path, f"{text}\n")
        return len(text)

    def _is_threaded(self, group: Path) -> bool:
        """Whether a group has processes and controllers, so that those below are no place for processes."""
        exempt = group == self.root and not self._namespace
        return not exempt and all((group / f"cgroup.{name}").read_text() for name in ("procs", "subtree_control"))
