"""Files of any kind below one directory, read and written whole by this process."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InvalidArgument
from .file_tree import FileTree

__all__ = ["WorkFolder"]

MAX_LISTED = 1000


class WorkFolder(FileTree):
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
        return self.shown(self.find(path))

    def read(self, path: str, most: int) -> bytes:
        """What is in a file.

        Raises:
            ToolError: it is not there, no file, larger than that many bytes, or outside.
        """
        return self.content(self.find(path), most)

    def write(self, path: str, content: bytes) -> None:
        """Put content in the place of a file, whole or not at all; directories that are missing are made.

        Raises:
            ToolError: it cannot be written, or is outside.
        """
        self.put({self.find(path): content})

    def names(self) -> list[str]:
        """The files below it, with their paths from there; hidden ones are left out, and more than a thousand."""
        found: list[str] = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [self.shown(Path(folder, name)) for name in sorted(files) if not name.startswith(".")]
            if len(found) >= MAX_LISTED:
                break
        return found[:MAX_LISTED]
