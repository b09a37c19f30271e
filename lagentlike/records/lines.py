"""Lines of a file: appended whole and durably by any number of writers, and read in spite of damage."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from ..errors import InvalidArgument, StateError

__all__ = ["Damage", "LineFile", "append_lines", "read_lines"]

logger = logging.getLogger(__name__)

_BLOCK = 65_536

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that cannot be used.

    Attributes:
        path: the file.
        line: its number, from 1.
        torn: whether it is the last one, cut off while it was written; a writer that was killed leaves such a line.
        reason: what is wrong with it.
    """

    path: Path
    line: int
    torn: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


class LineFile:
    """A file of lines to append to.

    What is appended is there as a whole and durably, or not at all: a write that fails (a full disk) is taken back.

    Args:
        path: the file; it is made, with its folder, where it is missing.

    Raises:
        OSError: it cannot be opened or written.

    Attributes:
        size: length in bytes.
        mended: bytes of a torn last line that were cut off when it was opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        _make_folder(self.path.parent)
        is_new = not self.path.exists()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self.mended = 0
        if is_new:
            sync_folder(self.path.parent)
        with self.locked():
            self._mend()

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def append(self, lines: Iterable[bytes]) -> None:
        """Append lines, given without their line breaks, and wait until they are on the disk.

        Raises:
            InvalidArgument: a line holds a line break.
            OSError: they could not be written; the file is as it was.
        """
        text = b"".join([line + b"\n" for line in _whole(lines)])
        if not text:
            return
        with self.locked():
            self._mend()  # another writer may have been killed
            before = self.size
            try:
                _write(self._descriptor, text)
                os.fdatasync(self._descriptor)
            except OSError as error:
                os.ftruncate(self._descriptor, before)
                raise OSError(error.errno, f"{error.strerror}; nothing was added", str(self.path)) from error

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def locked(self) -> _Lock:
        return _Lock(self._descriptor)

    def _mend(self) -> None:
        """Cut off a last line that was never finished."""
        size = self.size
        if not size or os.pread(self._descriptor, 1, size - 1) == b"\n":
            return
        end = size
        while end:
            start = max(0, end - _BLOCK)
            found = os.pread(self._descriptor, end - start, start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        os.ftruncate(self._descriptor, end)
        self.mended += size - end
        logger.warning("%s: a torn last line of %d bytes was cut off", self.path, size - end)


class _Lock:
    """Keeps other writers out, threads of this process with a `LineFile` of their own included."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def append_lines(path: str | os.PathLike[str], lines: Iterable[bytes]) -> None:
    """Append lines to a file, whole and durably; threads and processes may do so at once.

    Raises:
        InvalidArgument: a line holds a line break.
        OSError: they could not be written; the file is as it was.
    """
    with LineFile(path) as file:
        file.append(lines)


def read_lines(
    path: str | os.PathLike[str], read: Callable[[bytes], T], on_damage: Callable[[Damage], Any] | None = None
) -> Iterator[T]:
    """What `read` makes of each line of a file.

    Args:
        path: the file.
        read: makes something of a line without its line break; raises ValueError for a damaged one.
        on_damage: told of each damaged line, which is left out.

    Raises:
        StateError: a line is damaged and there is no `on_damage`. A torn last line is left out with a warning instead.
    """
    source = Path(path)
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            torn = not line.endswith(b"\n")
            try:
                if torn:
                    raise StateError("the last line is torn")
                if not line.strip():
                    continue
                value = read(line[:-1])
            except (ValueError, RecursionError) as error:
                damage = Damage(source, number, torn, str(error))
                if on_damage is not None:
                    on_damage(damage)
                elif torn:
                    logger.warning("%s; it is left out", damage)
                else:
                    raise StateError(str(damage)) from error
                continue
            yield value


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def _whole(lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        if b"\n" in line:
            raise InvalidArgument("lines", line, "a line holds no line break")
        yield line


def _write(descriptor: int, text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
