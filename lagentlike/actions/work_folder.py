"""Files of any kind below one directory, read and written whole by this process."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from ..errors import InvalidArgument, ToolError
from .file_worker import FileWorker

__all__ = ["WorkFolder"]

MAX_LISTED = 1000


class WorkFolder(FileWorker):
    """The directory that a tool of this process works in; no path leaves it, and no link.

    Args:
        path: the directory; this process's working directory by default.

    Raises:
        InvalidArgument: there is no such directory.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__((Path.cwd() if path is None else Path(path)).resolve())
        if not self.root.is_dir():
            raise InvalidArgument("root", path, "give a directory that exists")

    def name(self, path: str) -> str:
        """A path as it is from the directory.

        Raises:
            ToolError: it leads out of it, or nowhere that a path can lead.
        """
        return self._shown(self.find(path))

    def read(self, path: str, most: int) -> bytes:
        """What is in a file.

        Raises:
            ToolError: it is not there, no file, larger than that many bytes, or outside.
        """
        return self._bytes(self.find(path), path, most)

    def write(self, path: str, content: bytes) -> None:
        """Put content in the place of a file, whole or not at all; directories that are missing are made.

        Raises:
            ToolError: it cannot be written, or is outside.
        """
        found = self.find(path)
        temporary = f".{found.name[:100]}.{uuid.uuid4().hex}"
        try:
            with self._folder(found.parent, make=True) as folder:
                try:
                    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
                    with os.fdopen(descriptor, "wb") as target:
                        target.write(content)
                        target.flush()
                        os.fsync(descriptor)
                    os.replace(temporary, found.name, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=folder)
                    raise
        except OSError as error:
            raise ToolError(f"{path!r} cannot be written: {error.strerror}") from None

    def names(self) -> list[str]:
        """The files below it, with their paths from there; hidden ones are left out, and more than a thousand."""
        found: list[str] = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [self._shown(Path(folder, name)) for name in sorted(files) if not name.startswith(".")]
            if len(found) >= MAX_LISTED:
                break
        return found[:MAX_LISTED]
