"""The program that searches files, in a process of its own so that a pattern that never ends can be killed.

It needs nothing but Python: `python -I search_worker.py` reads one JSON object from stdin and writes lines to stdout.
"""

import fnmatch
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

__all__ = ["main"]

SKIPPED = frozenset({".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", ".mypy_cache", ".tox"})
MAX_FILE = 10 * 1024 * 1024
MAX_LINE = 500
"""Most characters of a line that are shown."""

MAX_LOOKED_AT = 10_000
"""Characters of a line in which an expression is looked for."""


def main() -> None:
    """Search as `root`, `pattern`, `glob`, `names` and `limit` say: for files, or lines as `path:number:text`."""
    request = json.load(sys.stdin)
    try:
        found = _names(request) if request["names"] else _lines(request)
    except re.error as error:
        sys.exit(f"{request['pattern'][:200]!r} is no regular expression: {error}")
    for text in islice(found, request["limit"]):
        sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")


def _names(request: dict[str, Any]) -> Iterator[str]:
    """The files whose names fit, newest first."""
    fits = _glob(request["pattern"])
    found = [(path, relative) for path, relative in _files(Path(request["root"])) if fits(relative)]
    found.sort(key=lambda item: _changed(item[0]), reverse=True)
    return iter([relative for _, relative in found])


def _lines(request: dict[str, Any]) -> Iterator[str]:
    """The lines that fit, file by file."""
    pattern = re.compile(request["pattern"])
    fits = _glob(request["glob"] or "*")
    return (
        f"{relative}:{number}:{line[:MAX_LINE].rstrip()}"
        for path, relative in _files(Path(request["root"]))
        if fits(relative)
        for number, line in enumerate(_text(path).split("\n"), 1)
        if pattern.search(line[:MAX_LOOKED_AT])
    )


def _text(path: Path) -> str:
    """A file's text; "" if it is none, or too large."""
    try:
        content = path.read_bytes() if path.stat().st_size <= MAX_FILE else b""
    except OSError:
        return ""
    return "" if b"\0" in content[:8192] else content.decode("utf-8", "replace").removesuffix("\n")


def _files(root: Path) -> Iterator[tuple[Path, str]]:
    """The files below a directory, or the one file, with their names from there; links are not followed."""
    if root.is_file():
        yield root, root.name
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        for path in [Path(folder, name) for name in sorted(files)]:
            if path.is_file() and not path.is_symlink():
                yield path, str(path.relative_to(root))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _glob(pattern: str) -> Callable[[str], bool]:
    """Whether a path fits: by its name alone if the pattern has no slash; `**/` stands for any folders."""
    if "/" not in pattern:
        match = re.compile(fnmatch.translate(pattern)).match
        return lambda path: match(path.rpartition("/")[2]) is not None
    pieces = ["/".join(_part(part) for part in piece.split("/")) for piece in pattern.split("**/")]
    match = re.compile("(?:.*/)?".join(pieces) + r"\Z", re.DOTALL).match
    return lambda path: match(path) is not None


def _part(part: str) -> str:
    """A part of a path as an expression; its stars stop at slashes."""
    inner = re.sub(r"\A\(\?s:|\)\\[Zz]\Z", "", fnmatch.translate(part)) if part else ""
    return inner.replace(".*", "[^/]*")


if __name__ == "__main__":
    main()
