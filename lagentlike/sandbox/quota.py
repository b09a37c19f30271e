"""Limits what is written to directories of this machine, by a watch: nothing else limits them."""

from __future__ import annotations

import math
import os
import resource
import stat
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .process import Process

__all__ = ["MOST_ENTRIES", "Amount", "size_of", "unlinked", "watch"]

SECONDS = 0.02
"""How often the free space of a workspace's file system is looked at."""

LEAST_SECONDS = 0.002
"""How often it is looked at where little more may be written."""

FASTEST = 8 << 30
"""Bytes that a program may write in a second: the limit can be passed no earlier than what is left divided by that."""

MOST_RESERVE = 64 << 20
"""Most bytes that are kept back: a program is refused to write that much earlier, since it is noticed late."""

LATE = 4 << 20
"""Bytes by which what is beyond its limit may grow when no more can be written to files: by what was on its way."""

MOST_ROUNDS = 10
"""How often its processes are gone through for some that were started meanwhile, with the limit of before."""

FULL_SECONDS = 0.1
"""How often a workspace that is full is looked through, for what was removed."""

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


def watch(process: Process, folders: Sequence[Path], most: int) -> None:
    """See to it that the directories of a process grow by no more bytes than that, nor by more than 200,000 entries.

    Shortly before (a quarter, at most 64 MiB) what it writes to files fails with `EFBIG`, until something is removed.
    Where they grow nevertheless, beyond the limit, or get too many entries, the process is killed.

    It is to be called before the program runs. What is free in their file systems is looked at every 2 to 20 ms, more
    often the less is left, and they themselves when enough has been taken from there, by whomever: so what is kept back
    is what a program can write in these milliseconds and while they are looked through. Where that cannot be done, all
    that is taken from the file systems counts as if the process had taken it.

    Args:
        process: the process.
        folders: its workspace, and whatever else of the disk it can write to; none lies in another one.
        most: bytes by which all of them together may grow.
    """
    _watcher.add(_Watched(process, folders, most))


def size_of(folders: Iterable[Path], most_entries: float = math.inf) -> Amount | None:
    """What is on disk below directories, links not followed, a file of several names once; None if that is not known.

    It cannot where there are more entries, paths too long to follow, or a directory that this user closed to itself.
    """
    size, entries, waiting = 0, 0, [str(folder) for folder in folders]
    counted: set[tuple[int, int]] = set()  # of the files that have several names
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(path) as inner:
                for entry in inner:
                    entries += 1
                    if entries > most_entries:
                        return None
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(entry.path)
                    elif status.st_nlink > 1:
                        if (status.st_dev, status.st_ino) in counted:
                            continue
                        counted.add((status.st_dev, status.st_ino))
                    size += status.st_blocks * 512
        except (FileNotFoundError, NotADirectoryError):
            continue  # it was removed meanwhile
        except PermissionError:
            if _is_own(path):
                return None
        except OSError:
            return None
    return Amount(size, entries)


def unlinked(pids: Iterable[int], devices: Collection[int]) -> Amount:
    """What processes hold on devices in files that they have open or mapped, and that are in no directory any more."""
    held: dict[int, int] = {}
    for pid in pids:
        with suppress(OSError):  # it has ended
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    status = descriptor.stat()
                    if status.st_nlink == 0 and status.st_dev in devices and stat.S_ISREG(status.st_mode):
                        held[status.st_ino] = status.st_blocks * 512
            for line in Path(f"/proc/{pid}/maps").read_bytes().splitlines():
                if line.endswith(b" (deleted)"):
                    span, access, _, place, inode = line.split(maxsplit=5)[:5]
                    if access.endswith(b"s") and os.makedev(*(int(part, 16) for part in place.split(b":"))) in devices:
                        first, end = (int(address, 16) for address in span.split(b"-"))
                        held[int(inode)] = max(held.get(int(inode), 0), end - first)
    return Amount(sum(held.values()), len(held))


def _let_write(process: Process, allowed: bool) -> bool:
    """Let all that runs in a process write to files, or not; False if that cannot be done."""
    if process.disk_full or not allowed:
        process.disk_full = not allowed
        try:
            for _ in range(MOST_ROUNDS):
                changed = [_let_one_write(pid, allowed) for pid in process.members()]
                if not any(changed):
                    break
        except OSError:
            return False
    return True


def _let_one_write(pid: int, allowed: bool) -> bool:
    """The same for one process; whether that changed anything."""
    with suppress(ProcessLookupError):
        most, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        if allowed == (most == 0) and hard != 0:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if allowed else 0, hard))
            return True
    return False


def _is_own(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _free(places: Iterable[Path]) -> Amount:
    """What is free in the file systems of directories, each in another one."""
    all_free = Amount()
    for place in places:
        status = os.statvfs(place)
        all_free = all_free.more(Amount(status.f_bfree * status.f_frsize, status.f_ffree))
    return all_free


class _Watched:
    """A process whose directories are looked at."""

    def __init__(self, process: Process, folders: Sequence[Path], most: int) -> None:
        self._process = process
        self._folders = folders
        self._places = {folder.stat().st_dev: folder for folder in folders}
        self._limit = most
        self._most = Amount(most - min(most // 4, MOST_RESERVE), MOST_ENTRIES)  # before it is refused to write
        self._before = size_of(folders, FEW_ENTRIES)
        self._is_counted = self._before is not None
        self._free_first = self._free = _free(self._places.values())
        self._left = self._most  # before another look has to be taken
        self._looked = self._ticked = time.monotonic()
        self._took = 0.0
        self._full_at: int | None = None  # bytes by which it had grown when no more could be written
        self.is_looking = False
        self.is_done = False

    def patience(self) -> float:
        """Seconds after which it is to be looked at again."""
        return min(max(self._left.size / FASTEST, LEAST_SECONDS), SECONDS)

    def tick(self, now: float) -> None:
        """Have the directories looked through, if it is time for it."""
        if self.is_looking or now < max(self._looked + self._took, self._ticked + self.patience()):
            return
        self._ticked = now
        usual = WHOLE_SECONDS if self._full_at is None else FULL_SECONDS
        if now >= self._looked + max(usual, 20 * self._took) or self._is_suspicious():
            self.is_looking = True
            try:
                threading.Thread(target=self._look, name="lagentlike-quota-look", daemon=True).start()
            except RuntimeError:  # there are too many threads now
                self.is_looking = False

    def _is_suspicious(self) -> bool:
        """Whether so much was taken from the file systems, since most was free there, that the limit may be passed."""
        try:
            free = _free(self._places.values())
        except OSError:  # one of them is gone
            return True
        self._free = Amount(*map(max, self._free, free))  # what others give back must not hide what is taken
        return self._free.less(free).passes(self._left)

    def _look(self) -> None:
        """Look the directories through, and see to it that the process does not write too much."""
        try:
            if self._process.has_ended():
                self.is_done = True
                return
            began = time.monotonic()
            is_suspicious = self._is_suspicious()
            self._free = _free(self._places.values())
            grown = self._grown(is_suspicious)
            self._looked = time.monotonic()
            self._took = self._looked - began
            self._act_on(grown)
        except OSError:  # one of them is gone
            self.is_done = True
        finally:
            self.is_looking = False

    def _act_on(self, grown: Amount) -> None:
        self._left = self._most.less(grown)
        is_full = self._left.size < 0
        may_go_on = self._left.entries >= 0 and _let_write(self._process, not is_full)
        if not is_full:
            self._full_at = None
        elif may_go_on:
            grown = self._grown(True)  # since it was refused to write
            self._full_at = grown.size if self._full_at is None else min(self._full_at, grown.size)
            may_have = max(self._full_at + LATE, self._limit)
            self._left = Amount(may_have - grown.size, self._left.entries)
            may_go_on = self._left.size >= 0
        if not may_go_on:
            self.is_done = True
            self._process.end("disk")

    def _grown(self, is_suspicious: bool) -> Amount:
        """By how much they have grown since the start, with what is in files that were removed if that may be much."""
        size = size_of(self._folders)
        taken = self._free_first.less(_free(self._places.values()))
        if not self._is_counted:  # what was taken since the start may have been taken by the program
            self._is_counted = True
            by_it = Amount(max(taken.size, 0), max(taken.entries, 0))
            self._before = None if size is None else size.less(by_it)
        if size is None or self._before is None:
            return taken
        grown = size.less(self._before)
        if (is_suspicious or taken.passes(self._most)) and not grown.passes(self._most):
            grown = grown.more(unlinked(self._process.members(), self._places))
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
            if not self._running:
                threading.Thread(target=self._work, name="lagentlike-quota", daemon=True).start()
                self._running = True
            self._watched.append(watched)

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
            time.sleep(min(one.patience() for one in watched))

    def _forget(self) -> None:
        """At first, and in a forked child, nothing is watched."""
        self._guard = threading.Lock()
        self._watched = []
        self._running = False


_watcher = _Watcher()
