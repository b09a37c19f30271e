"""Files below one directory: read, write, change and search them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ..errors import InvalidArgument, ToolError
from .base import BaseAction, tool_api
from .result import clean_text
from .unified_diff import apply_hunks, FilePatch, parse_diff

__all__ = ["EditFile", "ReadFile", "Root", "SearchFiles", "WriteFile", "file_tools"]

MAX_FILE = 10 * 1024 * 1024
"""Bytes of the largest file that is read or changed."""

MAX_LINES = 2000
MAX_LINE = 2000
SEARCH_SECONDS = 20


class Root:
    """The directory that the tools work in.

    A path that a model gives is taken from there. One that leads out, by itself or through links, is refused.

    Args:
        path: the directory; this process's working directory by default.
        confined: False lets paths lead out of it, to whatever the user may read and write.

    Raises:
        InvalidArgument: there is no such directory.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, confined: bool = True) -> None:
        self.path = (Path.cwd() if path is None else Path(path)).resolve()
        if not self.path.is_dir():
            raise InvalidArgument("root", path, "give a directory that exists")
        self.confined = confined

    def find(self, path: str) -> Path:
        """Where a path leads in the end.

        Raises:
            ToolError: out of the directory, in a circle, or nowhere that a path can lead.
        """
        try:
            if not path:
                raise ValueError("it is empty")
            given = Path(path).expanduser()
            found = (self.path / given).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ToolError(f"{path[:200]!r} is no path: {error}") from None
        if self.confined and not found.is_relative_to(self.path):
            raise ToolError(f"{path!r} leads out of {self.path}, where this tool works")
        return found

    @contextlib.contextmanager
    def folder(self, path: Path, make: bool = False) -> Iterator[int]:
        """A descriptor of a directory where `find` led.

        Links that were put on the way since are not followed: programs of a terminal may work in the same directory.

        Args:
            path: the directory.
            make: whether those that are missing are made.

        Raises:
            OSError: there is none, or a link in its place.
        """
        start = self.path if path.is_relative_to(self.path) else Path(path.anchor)
        flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
        descriptor = os.open(start, flags)
        try:
            for part in path.relative_to(start).parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                inner = os.open(part, flags, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def leaves(self, path: str) -> bool:
        """Whether a path leads out of it."""
        try:
            return not (self.path / Path(path).expanduser()).resolve().is_relative_to(self.path)
        except (OSError, RuntimeError, ValueError):
            return False

    def shown(self, path: Path) -> str:
        """A path as a model is told it."""
        return str(path.relative_to(self.path)) if path.is_relative_to(self.path) else str(path)


class _FileTool(BaseAction):
    """A tool for files.

    Args:
        root: the directory it works in: a path, or a `Root`, which several tools may share.
        description: what models are told, in place of the docstring of `run`.
        name: its name.
    """

    _default_name = ""

    def __init__(
        self,
        root: Root | str | os.PathLike[str] | None = None,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(description, name or self._default_name)
        self.root = root if isinstance(root, Root) else Root(root)

    def extra_repr(self) -> str:
        return f"root={str(self.root.path)!r}"


class ReadFile(_FileTool):
    """Read a text file, its lines numbered."""

    read_only = True
    _default_name = "read_file"

    @tool_api
    def run(self, path: str, offset: int = 1, limit: int = 500) -> str:
        """Read a text file, or list a directory. Lines are numbered: `12|text`.

        Args:
            path: The file.
            offset: Number of the first line that is wanted, from 1.
            limit: Most lines, at most 2000.
        """
        found = self.root.find(path)
        if found.is_dir():
            return _listing(found)
        if offset < 1 or not 1 <= limit <= MAX_LINES:
            raise ToolError(f"offset begins at 1, and limit is from 1 to {MAX_LINES}")
        lines = _read(self.root, found, path).split("\n")
        if lines[-1] == "":
            lines.pop()
        wanted = lines[offset - 1 : offset - 1 + limit]
        if not wanted:
            return f"({path} has {len(lines)} lines)" if lines else f"({path} is empty)"
        shown = [f"{number}|{_cut(line)}" for number, line in enumerate(wanted, offset)]
        last = offset - 1 + len(wanted)
        if last < len(lines):
            shown.append(f"({len(lines) - last} more lines: go on with offset={last + 1})")
        return "\n".join(shown)


class WriteFile(_FileTool):
    """Write a text file, whole or not at all."""

    _default_name = "write_file"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.needs_approval = _outside(self.root)

    @tool_api
    def run(self, path: str, content: str) -> str:
        """Write a text file, in place of the one that is there. Directories that are missing are made.

        Args:
            path: The file.
            content: All of its text.
        """
        found = self.root.find(path)
        there = found.exists()
        _write(self.root, found, content, path)
        return f"{'wrote over' if there else 'wrote'} {self.root.shown(found)}: {content.count(chr(10)) + 1} lines"


class EditFile(_FileTool):
    """Change text files: by the exact replacement of a text that is there once, or by a unified diff."""

    _default_name = "patch"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.needs_approval = _outside(self.root)

    @tool_api
    def run(
        self,
        path: str | None = None,
        old_string: str | None = None,
        new_string: str | None = None,
        replace_all: bool = False,
        diff: str | None = None,
    ) -> str:
        """Change files: replace a text in one file, or apply a unified diff of one or more files.

        Give path, old_string and new_string; or diff, which changes all its files or none.

        Args:
            path: The file in which to replace.
            old_string: The text that is there, exactly, with enough around it to be there only once.
            new_string: The text that takes its place.
            replace_all: Whether to replace it wherever it is.
            diff: A unified diff, with --- and +++ lines and hunks.
        """
        if diff is not None and old_string is None and new_string is None:
            return self._apply(parse_diff(diff))
        if path is None or old_string is None or new_string is None or diff is not None:
            raise ToolError("give path, old_string and new_string, or only diff")
        return self._replace(path, old_string, new_string, replace_all)

    def _replace(self, path: str, old: str, new: str, everywhere: bool) -> str:
        if not old or old == new:
            raise ToolError("old_string must be a text, and another one than new_string")
        found = self.root.find(path)
        text = _read(self.root, found, path)
        if "\r\n" in text and "\r" not in old:  # as models write such lines
            old, new = old.replace("\n", "\r\n"), new.replace("\n", "\r\n")
        places = _places(text, old)
        if not places:
            raise ToolError(f"old_string is not in {path}{_hint(text, old)}")
        lines = [text.count("\n", 0, place) + 1 for place in places[:20]]
        if len(places) > 1 and not everywhere:
            raise ToolError(
                f"old_string is in {path} {len(places)} times, at lines {', '.join(map(str, lines))}: give more around "
                "it, or replace_all"
            )
        _write(self.root, found, text.replace(old, new), path)
        return f"replaced {len(places)} in {self.root.shown(found)}, line {', '.join(map(str, lines))}"

    def _apply(self, patches: list[FilePatch]) -> str:
        texts: dict[Path, str | None] = {}  # all of it is worked out before any of it is written
        for patch in patches:
            self._applied(patch, texts)
        for path, text in texts.items():
            if text is not None:
                _write(self.root, path, text, str(path))
        for path, text in texts.items():
            if text is None:
                with self.root.folder(path.parent) as folder:
                    os.unlink(path.name, dir_fd=folder)
        return "\n".join(
            f"{'deleted' if text is None else 'changed'} {self.root.shown(p)}" for p, text in texts.items()
        )

    def _applied(self, patch: FilePatch, texts: dict[Path, str | None]) -> None:
        source, target = patch.old_path, patch.new_path
        before = ""
        if source is not None:
            old = self.root.find(source)
            known = texts.get(old, ...)
            if known is None:
                raise ToolError(f"the diff changes {source}, which it deletes")
            before = known if isinstance(known, str) else _read(self.root, old, source)
            if target != source:
                texts[old] = None
        elif target is not None and self.root.find(target).exists():
            raise ToolError(f"the diff makes {target}, which is there already")
        try:
            after = apply_hunks(before, patch.hunks)
        except ToolError as error:
            raise ToolError(f"{target or source}: {error}; nothing was changed") from None
        if target is not None:
            texts[self.root.find(target)] = after
        elif after:
            raise ToolError(f"the diff deletes {source} without all of its lines; nothing was changed")


class SearchFiles(_FileTool):
    """Search files: for lines that fit an expression, or for names that fit a pattern.

    ripgrep does it where it is installed, and else Python, in a process of its own; both are stopped after 20 seconds.
    Files that are no text or larger than 10 MiB are left out. So is what is hidden or ignored by git, as ripgrep sees
    it; Python leaves out directories such as `.git` and `node_modules`.
    """

    read_only = True
    _default_name = "search_files"

    @tool_api
    def run(
        self,
        pattern: str,
        target: Literal["content", "files"] = "content",
        path: str = ".",
        file_glob: str | None = None,
        limit: int = 50,
    ) -> str:
        """Search in files (`path:line:text` for each line that fits), or for files by name, newest first.

        Args:
            pattern: A regular expression for lines; for files a glob such as *.py or src/**/*.md.
            target: What is searched.
            path: The directory or file to search.
            file_glob: Only files of such names, when lines are searched.
            limit: Most results, at most 500.
        """
        if not 1 <= limit <= 500:
            raise ToolError("limit is from 1 to 500")
        found = self.root.find(path)
        if not found.exists():
            raise ToolError(f"there is no {path!r}")
        ripgrep = shutil.which("rg") if target == "content" else None
        if ripgrep is not None:
            command = [ripgrep, *_RIPGREP, f"--max-filesize={MAX_FILE}", f"--regexp={pattern}"]
            command += [f"--glob={file_glob}"] if file_glob else []
            command += ["--with-filename", "--", found.name if found.is_file() else "."]
            lines = _searched(command, "", found.parent if found.is_file() else found, limit)
            lines = [line.removeprefix("./") for line in lines]
        else:
            request = {"root": str(found), "pattern": pattern, "glob": file_glob, "names": target == "files"}
            command = [sys.executable, "-I", str(Path(__file__).with_name("search_worker.py"))]
            lines = _searched(command, json.dumps({**request, "limit": limit + 1}), self.root.path, limit)
        if not lines:
            return "nothing was found"
        more = [f"(there is more: the first {limit} are shown)"] if len(lines) > limit else []
        return "\n".join([*lines[:limit], *more])


def file_tools(root: str | os.PathLike[str] | None = None, confined: bool = True) -> list[BaseAction]:
    """`ReadFile`, `WriteFile`, `EditFile` and `SearchFiles` for one directory.

    Args:
        root: the directory; this process's working directory by default.
        confined: False lets paths lead out of it.
    """
    shared = Root(root, confined)
    return [ReadFile(shared), WriteFile(shared), EditFile(shared), SearchFiles(shared)]


_RIPGREP = (
    "--line-number",
    "--no-heading",
    "--color=never",
    "--no-config",
    "--max-columns=500",
    "--max-columns-preview",
)


def _searched(command: list[str], request: str, cwd: Path, limit: int) -> list[str]:
    """The lines that a search program writes, as many as the limit and one."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        deadline = threading.Timer(SEARCH_SECONDS, process.kill)
        deadline.start()
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(request.encode("utf-8", "replace"))
            lines = [line.decode("utf-8", "replace").rstrip("\n") for line in islice(process.stdout, limit + 1)]
            if len(lines) > limit:  # the rest is not wanted
                process.kill()
        overran = process.returncode < 0 and len(lines) <= limit
        deadline.cancel()
        deadline.join()
        errors.seek(0)
        said = errors.read(65536).decode("utf-8", "replace").strip().splitlines()
    if overran:
        raise ToolError(f"the search took longer than {SEARCH_SECONDS} seconds: search less, or more simply")
    if not lines and process.returncode != 0 and said:
        raise ToolError(said[-1])
    return lines


def _outside(root: Root) -> Any:
    """Whether a call writes outside the directory, where that is allowed."""
    return lambda arguments: (
        f"it writes to {arguments['path']}, which is outside {root.path}"
        if not root.confined and isinstance(arguments.get("path"), str) and root.leaves(arguments["path"])
        else False
    )


def _read(root: Root, path: Path, given: str) -> str:
    """A file's text.

    Raises:
        ToolError: it is not there, no file, too large, or no text.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        with root.folder(path.parent) as folder:
            descriptor = os.open(path.name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise ToolError(f"there is no file {given!r}") from None
    except OSError as error:
        raise ToolError(f"{given!r} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as source:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ToolError(f"{given!r} is no file")
        if status.st_size > MAX_FILE:
            raise ToolError(
                f"{given!r} has {status.st_size:,} bytes, more than {MAX_FILE:,}: take parts of it otherwise"
            )
        content = source.read(MAX_FILE + 1)
    if b"\0" in content:
        raise ToolError(f"{given!r} is no text: it holds NUL bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ToolError(f"{given!r} is no UTF-8 text (byte {error.start})") from None


def _write(root: Root, path: Path, text: str, given: str) -> None:
    """Put a text in a file's place, whole or not at all; its permissions stay."""
    content = clean_text(text).encode()
    if len(content) > MAX_FILE:
        raise ToolError(f"the text has {len(content):,} bytes, more than {MAX_FILE:,}")
    if path.exists() and not path.is_file():
        raise ToolError(f"{given!r} is no file")
    try:
        with root.folder(path.parent, make=True) as folder:
            _put(folder, path.name, content)
    except OSError as error:
        raise ToolError(f"{given!r} cannot be written: {error.strerror}") from None


def _put(folder: int, name: str, content: bytes) -> None:
    """Write a file of a directory beside it first, and then put it in its place."""
    temporary = f".{name[:100]}.{uuid.uuid4().hex}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as target:
            target.write(content)
            target.flush()
            os.fsync(descriptor)
            try:
                mode = stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            except FileNotFoundError:
                mode = 0o666 & ~_umask()
            os.fchmod(descriptor, mode)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _umask() -> int:
    """The permissions that new files do not get; read from the kernel, as asking for it sets it for all threads."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0o022
    return next((int(line.split()[1], 8) for line in status.splitlines() if line.startswith("Umask:")), 0o022)


def _places(text: str, part: str) -> list[int]:
    """Where a part begins, as `str.replace` counts it."""
    places: list[int] = []
    place = text.find(part)
    while place >= 0:
        places.append(place)
        place = text.find(part, place + len(part))
    return places


def _hint(text: str, old: str) -> str:
    """What may be wrong with a text that is not there."""
    first = next((line.strip() for line in old.splitlines() if line.strip()), "")
    near = [number for number, line in enumerate(text.splitlines(), 1) if first and line.strip() == first][:5]
    if not near:
        return ": read the file again"
    return f": its first line is at {', '.join(map(str, near))}, but spaces or the lines after it differ"


def _listing(folder: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    more = [f"({len(names) - MAX_LINES} more)"] if len(names) > MAX_LINES else []
    return "\n".join([*names[:MAX_LINES], *more]) or "(an empty directory)"


def _cut(line: str) -> str:
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}… ({len(line) - MAX_LINE} more characters)"
