"""Watches how much is written to workspaces that are directories of this machine, where nothing else limits them."""

from __future__ import annotations

import math
import os
import stat
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .process import Process

__all__ = ["MOST_ENTRIES", "Amount", "size_of", "unlinked", "watch"]

SECONDS = 0.02
"""How often the free space of a workspace's file system is looked at."""

WHOLE_SECONDS = 0.5
"""How often a workspace is looked through whatever space is free; one that takes long to look through, less often."""

FEW_ENTRIES = 300
"""Most files and directories that are counted before a program is started; where there are more, that is done later."""

MOST_ENTRIES = 200_000
"""Most files and directories by which a workspace may grow: each costs its file system an inode."""


class Amount(NamedTuple):
    """What is used of a file system, or free there: bytes, and files and directories."""

    size: int = 0
    entries: int = 0

    def more(self, other: Amount) -> Amount:
        return Amount(self.size + other.size, self.entries + other.entries)

    def less(self, other: Amount) -> Amount:
        return Amount(self.size - other.size, self.entries - other.entries)

    def passes(self, other: Amount) -> bool:
        """Whether it is more than another one in any respect."""
        return self.size > other.size or self.entries > other.entries


def watch(process: Process, folder: Path, most: int) -> None:
    """Kill a process when its workspace has grown by more bytes than that, or by more than 200,000 entries.

    It is to be called before the program runs. What is free in the file system is looked at every 20 ms, and the
    workspace itself when enough has been taken from there, by whomever: so a program can write beyond its limit what it
    writes in these 20 ms and while the workspace is looked through. Where that cannot be done, all that is taken from
    the file system counts as if the process had taken it.
    """
    _watcher.add(_Watched(process, folder, Amount(most, MOST_ENTRIES)))


def size_of(folder: Path, most_entries: float = math.inf) -> Amount | None:
    """What is on disk below a directory, links not followed; None if that cannot be told.

    It cannot where there are more entries, paths too long to follow, or a directory that this user closed to itself.
    """
    size, entries, waiting = 0, 0, [str(folder)]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(path) as inner:
                for entry in inner:
                    entries += 1
                    if entries > most_entries:
                        return None
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # it was removed meanwhile
        except PermissionError:
            if _is_own(path):
                return None
        except OSError:
            return None
    return Amount(size, entries)


def unlinked(pids: Iterable[int], device: int) -> Amount:
    """What processes hold on a device in files that they have open or mapped, and that are in no directory any more."""
    held: dict[int, int] = {}
    for pid in pids:
        with suppress(OSError):  # it has ended
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    status = descriptor.stat()
                    if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                        held[status.st_ino] = status.st_blocks * 512
            for line in Path(f"/proc/{pid}/maps").read_bytes().splitlines():
                if line.endswith(b" (deleted)"):
                    span, access, _, place, inode = line.split(maxsplit=5)[:5]
                    if access.endswith(b"s") and os.makedev(*(int(part, 16) for part in place.split(b":"))) == device:
                        first, end = (int(address, 16) for address in span.split(b"-"))
                        held[int(inode)] = max(held.get(int(inode), 0), end - first)
    return Amount(sum(held.values()), len(held))


def _is_own(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _free(folder: Path) -> Amount:
    status = os.statvfs(folder)
    return Amount(status.f_bfree * status.f_frsize, status.f_ffree)


class _Watched:
    """A process whose workspace is looked at."""

    def __init__(self, process: Process, folder: Path, most: Amount) -> None:
        self._process = process
        self._folder = folder
        self._most = most
        self._before = size_of(folder, FEW_ENTRIES)
        self._is_counted = self._before is not None
        self._free_first = self._free = _free(folder)
        self._left = most  # before another look has to be taken
        self._looked = time.monotonic()
        self._took = 0.0
        self.is_looking = False
        self.is_done = False

    def tick(self, now: float) -> None:
        """Have the workspace looked through, if it is time for it."""
        if self.is_looking or now < self._looked + self._took:
            return
        if now >= self._looked + max(WHOLE_SECONDS, 20 * self._took) or self._is_suspicious():
            self.is_looking = True
            threading.Thread(target=self._look, name="lagentlike-quota-look", daemon=True).start()

    def _is_suspicious(self) -> bool:
        """Whether so much was taken from the file system that the limit may be passed."""
        try:
            return self._free.less(_free(self._folder)).passes(self._left)
        except OSError:  # it is gone
            return True

    def _look(self) -> None:
        """Look the workspace through, and kill the process if it wrote too much."""
        try:
            if self._process.has_ended():
                self.is_done = True
                return
            began = time.monotonic()
            self._free = _free(self._folder)
            grown = self._grown()
            self._left = self._most.less(grown)
            self._looked = time.monotonic()
            self._took = self._looked - began
            if grown.passes(self._most):
                self.is_done = True
                self._process.end("disk")
        except OSError:  # the workspace itself is gone
            self.is_done = True
        finally:
            self.is_looking = False

    def _grown(self) -> Amount:
        """By how much the workspace has grown since the start."""
        size = size_of(self._folder)
        taken = self._free_first.less(_free(self._folder))
        if not self._is_counted:  # what was taken since the start may have been taken by the program
            self._is_counted = True
            by_it = Amount(max(taken.size, 0), max(taken.entries, 0))
            self._before = None if size is None else size.less(by_it)
        if size is None or self._before is None:
            return taken
        grown = size.less(self._before)
        if taken.passes(self._most) and not grown.passes(self._most):
            grown = grown.more(unlinked(self._process.members(), self._folder.stat().st_dev))
        return grown


class _Watcher:
    """One thread that looks at all of them, while there are any."""

    _watched: list[_Watched]
    _running: bool

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def add(self, watched: _Watched) -> None:
        with self._guard:
            self._watched.append(watched)
            if not self._running:
                self._running = True
                threading.Thread(target=self._work, name="lagentlike-quota", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._guard:
                self._watched = [one for one in self._watched if not one.is_done]
                if not self._watched:
                    self._running = False
                    return
                watched = list(self._watched)
            now = time.monotonic()
            for one in watched:
                one.tick(now)
            time.sleep(SECONDS)

    def _forget(self) -> None:
        """At first, and in a forked child, nothing is watched."""
        self._guard = threading.Lock()
        self._watched = []
        self._running = False


_watcher = _Watcher()
