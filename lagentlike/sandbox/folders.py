"""Temporary directories that go with this process, even if it is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

__all__ = ["OwnedFolder", "remove_tree"]


class OwnedFolder:
    """A temporary directory of this process, which holds a lock on it as long as it lives.

    A process that was killed leaves its directories; the next one that makes one of the same kind in the same place
    removes those that nobody holds.

    Args:
        kind: what it is for: a part of its name.
        parent: where it is made; in the system's place for such things by default.
        mode: who may do what with it.
    """

    def __init__(self, kind: str, parent: str | os.PathLike[str] | None = None, mode: int = 0o700) -> None:
        place = Path(tempfile.gettempdir() if parent is None else parent)
        prefix = f"lagentlike-{kind}-"
        _sweep(place, prefix)
        made = Path(tempfile.mkdtemp(prefix=".lagentlike-", dir=place))
        self._lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        made.chmod(mode)
        self.path = made.rename(place / f"{prefix}{made.name.removeprefix('.lagentlike-')}")  # it is held by now
        self._owner = os.getpid()
        self._guard = threading.Lock()

    def remove(self) -> None:
        """Remove it with all that is in it; again, or in a forked child, does nothing.

        When another thread removes it, it waits: at the end of the program that thread might not live to do so.

        Raises:
            OSError: it cannot be removed.
        """
        if self._owner != os.getpid():
            return
        with self._guard:
            lock, self._lock = self._lock, -1
            if lock < 0:
                return
            try:
                remove_tree(self.path)
            finally:
                os.close(lock)


def remove_tree(folder: Path) -> None:
    """Remove a directory that code may have filled, links not followed, whatever its modes and however deep it is.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        if not os.path.lexists(folder):
            return
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
        if folder.exists():
            raise OSError(f"{folder} cannot be removed") from None


_swept: set[tuple[Path, str]] = set()


def _sweep(place: Path, prefix: str) -> None:
    """Remove what killed processes left, once for each kind and place."""
    if (place, prefix) in _swept:
        return
    _swept.add((place, prefix))
    for folder in place.glob(f"{prefix}*"):
        with suppress(OSError):  # somebody else's, or it is gone
            if folder.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(folder)
            finally:
                os.close(lock)
