"""The program that does the work of the file tools in a sandbox: one JSON object a line in, one out.

It needs the standard library only, so that it starts fast.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ToolError
from .file_search import lines_that_fit, names_that_fit
from .file_tree import FileTree
from .unified_diff import apply_hunks, FilePatch, parse_diff

__all__ = ["FileWorker", "main"]

MAX_FILE = 10 * 1024 * 1024
"""Bytes of the largest file that is read or changed."""

MAX_IMAGE = 20 * 1024 * 1024
"""Bytes of the largest image."""

MAX_LINES = 2000
MAX_LINE = 2000
MAX_SHOWN = 30_000
"""Most characters of a file that are shown at once."""


def main(root: str, confined: bool) -> None:
    """Answer requests `{"action", …}` on stdin with `{"text"}` or `{"error"}` on stdout, which are one socket."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    worker = FileWorker(Path(root), confined)
    for line in requests:
        answers.write(json.dumps(worker.answer(**json.loads(line))).encode() + b"\n")
        answers.flush()
    sys.exit(0)


class FileWorker(FileTree):
    """Reads, writes, changes and searches files below a directory, for models.

    Args:
        root: the directory.
        confined: False lets paths lead out of it.
    """

    def __init__(self, root: Path, confined: bool = True) -> None:
        super().__init__(root, confined)
        self._actions: dict[str, Callable[..., str]] = {
            "read": self._read,
            "write": self._write,
            "replace": self._replace,
            "apply": self._apply,
            "search": self._search,
            "embed": self._embed,
        }

    def answer(self, action: str, **arguments: Any) -> dict[str, str]:
        """What an action gives, as `text`, or why it cannot be done, as `error`."""
        try:
            return {"text": self._actions[action](**arguments)}
        except ToolError as error:
            return {"error": str(error)}
        except Exception as error:  # noqa: BLE001  # the next request is another one
            return {"error": f"{type(error).__name__}: {error}"}

    # What the tools ask for

    def _read(self, path: str, offset: int, limit: int) -> str:
        found = self.find(path)
        if found.is_dir():
            return self._listing(found)
        if offset < 1 or not 1 <= limit <= MAX_LINES:
            raise ToolError(f"offset begins at 1, and limit is from 1 to {MAX_LINES}")
        lines = self._text(found).split("\n")
        if lines[-1] == "":
            lines.pop()
        shown: list[str] = []
        room = MAX_SHOWN
        for number, line in enumerate(lines[offset - 1 : offset - 1 + limit], offset):
            shown.append(f"{number}|{_cut(line)}")
            room -= len(shown[-1]) + 1
            if room < 0:
                shown.pop()
                break
        if not shown:
            return f"({path} has {len(lines)} lines)" if lines else f"({path} is empty)"
        last = offset - 1 + len(shown)
        if last < len(lines):
            shown.append(f"({len(lines) - last} more lines: go on with offset={last + 1})")
        return "\n".join(shown)

    def _write(self, path: str, content: str) -> str:
        found = self.find(path)
        there = self.put({found: _encoded(content)})
        lines = content.count("\n") + (content[-1:] not in ("", "\n"))
        return f"{'wrote over' if there else 'wrote'} {self.shown(found)}: {lines} line{'' if lines == 1 else 's'}"

    def _replace(self, path: str, old: str, new: str, everywhere: bool) -> str:
        if not old or old == new:
            raise ToolError("old_string must be a text, and another one than new_string")
        found = self.find(path)
        text = self._text(found)
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
        self.put({found: _encoded(text.replace(old, new))})
        return f"replaced {len(places)} in {self.shown(found)}, line {', '.join(map(str, lines))}"

    def _apply(self, diff: str) -> str:
        texts: dict[Path, str | None] = {}  # all of it is worked out before any of it is written
        for patch in parse_diff(diff):
            self._apply_to_file(patch, texts)
        self.put({path: None if text is None else _encoded(text) for path, text in texts.items()})
        return "\n".join(f"{'deleted' if text is None else 'changed'} {self.shown(p)}" for p, text in texts.items())

    def _apply_to_file(self, patch: FilePatch, texts: dict[Path, str | None]) -> None:
        source, target = patch.old_path, patch.new_path
        before = ""
        if source is not None:
            old = self.find(source)
            known = texts.get(old, ...)
            if known is None:
                raise ToolError(f"the diff changes {source}, which it deletes")
            before = known if isinstance(known, str) else self._text(old)
            if target != source:
                texts[old] = None
        elif target is not None and self.find(target).exists():
            raise ToolError(f"the diff makes {target}, which is there already")
        try:
            after = apply_hunks(before, patch.hunks)
        except ToolError as error:
            raise ToolError(f"{target or source}: {error}; nothing was changed") from None
        if target is not None:
            texts[self.find(target)] = after
        elif after:
            raise ToolError(f"the diff deletes {source} without all of its lines; nothing was changed")

    def _search(self, pattern: str, names: bool, path: str, glob: str | None, limit: int) -> str:
        if not 1 <= limit <= 500:
            raise ToolError("limit is from 1 to 500")
        found = self.find(path)
        if not found.exists():
            raise ToolError(f"there is no {path!r}")
        start = Path(found.name if found.is_file() else ".")
        with self.folder(found.parent if found.is_file() else found) as folder:
            os.fchdir(folder)
        most = limit + 1
        lines = names_that_fit(start, pattern, most) if names else lines_that_fit(start, pattern, glob, most)
        if found.is_dir() and found != self.root:  # with paths that can be read
            lines = [f"{self.shown(found)}/{line}" for line in lines]
        if not lines:
            return "nothing was found"
        more = [f"(there is more: the first {limit} are shown)"] if len(lines) > limit else []
        return "\n".join([*lines[:limit], *more])

    def _embed(self, path: str) -> str:
        """An image file as a URL that holds it."""
        content = self.content(self.find(path), MAX_IMAGE)
        kind = next((kind for mark, kind in _IMAGES.items() if content.startswith(mark)), None)
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            kind = "image/webp"
        if kind is None:
            raise ToolError(f"{path!r} is no PNG, JPEG, GIF or WebP image")
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"

    # Files

    def _listing(self, path: Path) -> str:
        with self.folder(path) as folder:
            descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        try:
            with os.scandir(descriptor) as entries:
                names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in entries)
        finally:
            os.close(descriptor)
        more = [f"({len(names) - MAX_LINES} more)"] if len(names) > MAX_LINES else []
        return "\n".join([*names[:MAX_LINES], *more]) or "(an empty directory)"

    def _text(self, path: Path) -> str:
        """A file's text.

        Raises:
            ToolError: it is not there, no file, too large, or no text.
        """
        content = self.content(path, MAX_FILE)
        if b"\0" in content:
            raise ToolError(f"{self.shown(path)!r} is no text: it holds NUL bytes")
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise ToolError(f"{self.shown(path)!r} is no UTF-8 text (byte {error.start})") from None


def _encoded(text: str) -> bytes:
    """A text as it is written.

    Raises:
        ToolError: it is too large.
    """
    content = text.encode()
    if len(content) > MAX_FILE:
        raise ToolError(f"the text has {len(content):,} bytes, more than {MAX_FILE:,}")
    return content


_IMAGES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


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


def _cut(line: str) -> str:
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}… ({len(line) - MAX_LINE} more characters)"
