"""Watches how much is written to workspaces that are directories of this machine, where nothing else limits them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from .process import Process

__all__ = ["SECONDS", "size_of", "watch"]

SECONDS = 0.5
"""How often a workspace is looked at; one that takes long to look at, less often."""

MOST_ENTRIES = 200_000


def watch(process: Process, folder: Path, most: int) -> None:
    """Kill a process when its workspace has grown by more bytes than that.

    A directory that has more than 200,000 entries at first is not watched.
    """
    _watcher.add(_Watched(process, folder, most))


def size_of(folder: Path) -> int | None:
    """Bytes on disk below a directory, links not followed; None if that cannot be told.

    It cannot where there are too many entries, or paths too long to follow.
    """
    total, entries, waiting = 0, 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as inner:
                for entry in inner:
                    entries += 1
                    status = entry.stat(follow_symlinks=False)
                    total += status.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # it was removed meanwhile, or is somebody else's
        except OSError:
            return None
        if entries > MOST_ENTRIES:
            return None
    return total


class _Watched:
    """A process whose workspace is looked at."""

    def __init__(self, process: Process, folder: Path, most: int) -> None:
        self.process = process
        self.next_look = 0.0
        self._folder = folder
        self._most = most
        self._before: int | None = None
        self._looks = 0

    def look(self) -> bool:
        """Look, and kill the process if it wrote too much; whether it has to be looked at again."""
        if self.process.poll() is not None:
            return False
        began = time.monotonic()
        size = size_of(self._folder)
        self._looks += 1
        if self._looks == 1:
            self._before = size
            if size is None:
                return False
        elif size is None or size - (self._before or 0) > self._most:
            self.process.ended = "disk"
            self.process.kill()
            return False
        now = time.monotonic()
        self.next_look = now + max(SECONDS, 20 * (now - began))
        return True


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
                if not self._watched:
                    self._running = False
                    return
                watched = list(self._watched)
            now = time.monotonic()
            done = [one for one in watched if one.next_look <= now and not one.look()]
            with self._guard:
                self._watched = [one for one in self._watched if one not in done]
            time.sleep(SECONDS / 2)

    def _forget(self) -> None:
        """At first, and in a forked child, nothing is watched."""
        self._guard = threading.Lock()
        self._watched = []
        self._running = False


_watcher = _Watcher()
