"""Files below one directory, read and written whole, through no link that leads out."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..errors import InvalidArgument, ToolError

__all__ = ["WorkFolder"]

MAX_LISTED = 1000

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW


class WorkFolder:
    """The directory that a tool of this process works in.

    Args:
        path: the directory; this process's working directory by default.

    Raises:
        InvalidArgument: there is no such directory.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = (Path.cwd() if path is None else Path(path)).resolve()
        if not self.path.is_dir():
            raise InvalidArgument("root", path, "give a directory that exists")

    def find(self, path: str) -> str:
        """Where a path leads, from the directory.

        Raises:
            ToolError: out of it, or nowhere that a path can lead.
        """
        try:
            found = (self.path / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ToolError(f"{path[:200]!r} is no path: {error}") from None
        if found == self.path or not found.is_relative_to(self.path):
            raise ToolError(f"{path!r} is no file below {self.path}, where this tool works")
        return str(found.relative_to(self.path))

    def read(self, path: str, most: int) -> bytes:
        """What is in a file.

        Raises:
            ToolError: it is not there, no file, larger than that many bytes, or outside.
        """
        parent, name = os.path.split(self.find(path))
        try:
            with self._opened(parent) as folder:
                descriptor = os.open(name, _FILE, dir_fd=folder)
        except FileNotFoundError:
            raise ToolError(f"there is no file {path!r}") from None
        except OSError as error:
            raise ToolError(f"{path!r} cannot be read: {error.strerror}") from None
        with os.fdopen(descriptor, "rb") as source:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ToolError(f"{path!r} is no file")
            if status.st_size > most:
                raise ToolError(f"{path!r} has {status.st_size:,} bytes, more than {most:,}")
            return source.read(most)

    def write(self, path: str, content: bytes) -> None:
        """Put content in the place of a file, whole or not at all; directories that are missing are made.

        Raises:
            ToolError: it cannot be written, or is outside.
        """
        parent, name = os.path.split(self.find(path))
        temporary = f".{name[:100]}.{uuid.uuid4().hex}"
        try:
            with self._opened(parent, make=True) as folder:
                try:
                    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
                    with os.fdopen(descriptor, "wb") as target:
                        target.write(content)
                        target.flush()
                        os.fsync(descriptor)
                    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=folder)
                    raise
        except OSError as error:
            raise ToolError(f"{path!r} cannot be written: {error.strerror}") from None

    def names(self) -> list[str]:
        """The files below it, with their paths from there; hidden ones are left out, and more than a thousand."""
        found: list[str] = []
        for folder, folders, files in os.walk(self.path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            paths = (Path(folder, name) for name in sorted(files) if not name.startswith("."))
            found += [str(path.relative_to(self.path)) for path in paths]
            if len(found) >= MAX_LISTED:
                break
        return found[:MAX_LISTED]

    @contextlib.contextmanager
    def _opened(self, path: str, make: bool = False) -> Iterator[int]:
        """A descriptor of a directory; links that were put on the way meanwhile are not followed."""
        descriptor = os.open(self.path, _FOLDER)
        try:
            for part in Path(path).parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                inner = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)
