"""Files below one directory, which no path and no link leads out of.

It needs the standard library only, so that the process that works for the file tools starts fast.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import ToolError

__all__ = ["FileTree"]

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | os.O_NOFOLLOW


class FileTree:
    """Finds, reads and writes files below a directory.

    A path is taken from there. One that leads out, by itself or through links, is refused; so is a link that was put in
    the way after that was looked at, since programs of a terminal may work in the same directory.

    Args:
        root: the directory.
        confined: False lets paths lead out of it.
    """

    def __init__(self, root: Path, confined: bool = True) -> None:
        self.root = root
        self.confined = confined

    def find(self, path: str) -> Path:
        """Where a path leads in the end.

        Raises:
            ToolError: out of the directory, in a circle, or nowhere that a path can lead.
        """
        try:
            if not path:
                raise ValueError("it is empty")
            found = (self.root / Path(path).expanduser()).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ToolError(f"{path[:200]!r} is no path: {error}") from None
        if self.confined and not found.is_relative_to(self.root):
            raise ToolError(f"{path!r} leads out of {self.root}, where this tool works")
        return found

    def shown(self, path: Path) -> str:
        """A path as a model is told it: from the directory, if it is below that."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    @contextlib.contextmanager
    def folder(self, path: Path, make: bool = False) -> Iterator[int]:
        """A descriptor of a directory where `find` led; links that were put on the way since are not followed.

        Args:
            path: the directory.
            make: whether those that are missing are made.

        Raises:
            OSError: there is none, or a link in its place.
        """
        start = self.root if path.is_relative_to(self.root) else Path(path.anchor)
        descriptor = os.open(start, _FOLDER)
        try:
            for part in path.relative_to(start).parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                inner = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def content(self, path: Path, most: int) -> bytes:
        """What is in a file.

        Args:
            path: where `find` led.
            most: bytes of the largest file that is read.

        Raises:
            ToolError: it is not there, no file, or too large.
        """
        shown = self.shown(path)
        try:
            with self.folder(path.parent) as folder:
                descriptor = os.open(path.name, _READ, dir_fd=folder)
        except FileNotFoundError:
            raise ToolError(f"there is no file {shown!r}") from None
        except OSError as error:
            raise ToolError(f"{shown!r} cannot be read: {error.strerror}") from None
        with os.fdopen(descriptor, "rb") as source:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ToolError(f"{shown!r} is no file")
            if status.st_size > most:
                raise ToolError(
                    f"{shown!r} has {status.st_size:,} bytes, more than {most:,}: take parts of it otherwise"
                )
            return source.read(most)

    def put(self, contents: Mapping[Path, bytes | None]) -> list[Path]:
        """Put contents in the places of files, whose permissions stay, and take away the files of None.

        Each is put there whole, and all of them are, or none. Directories that are missing are made.

        Args:
            contents: by the paths where `find` led.

        Returns:
            Those that were there before.

        Raises:
            ToolError: one of them cannot be written.
        """
        there: list[Path] = []
        with contextlib.ExitStack() as stack:
            folders: dict[Path, int] = {}
            steps: list[tuple[Path, int, str]] = []
            for path, content in contents.items():
                with self._told(path):
                    if path.exists():
                        there.append(path)
                        if not path.is_file():
                            raise ToolError(f"{self.shown(path)!r} cannot be written: it is no file")
                    folder = folders.get(path.parent, -1)
                    if folder < 0:
                        folder = folders[path.parent] = stack.enter_context(self.folder(path.parent, make=True))
                    beside = stack.enter_context(_beside(folder, path.name, content or b""))
                    steps.append((path, folder, beside))
            for path, folder, beside in steps:
                with self._told(path):
                    if contents[path] is None:
                        os.unlink(path.name, dir_fd=folder)
                    else:
                        os.replace(beside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        return there

    @contextlib.contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ToolError(f"{self.shown(path)!r} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def _beside(folder: int, name: str, content: bytes) -> Iterator[str]:
    """A file of a directory with the permissions of another one there, to be put in its place."""
    beside = f".{uuid.uuid4().hex}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as target:
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                if stat.S_ISREG(there):
                    os.fchmod(descriptor, stat.S_IMODE(there))
            target.write(content)
            target.flush()
            os.fsync(descriptor)
        yield beside
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=folder)
