"""Searches files below a directory, in the process that works for the file tools."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from ..errors import ToolError

__all__ = ["lines_that_fit", "names_that_fit"]

SKIPPED = frozenset({".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", ".mypy_cache", ".tox"})
MAX_FILE = 10 * 1024 * 1024
MAX_LINE = 500
"""Most characters of a line that are shown."""

MAX_LOOKED_AT = 10_000
"""Characters of a line in which an expression is looked for."""


def names_that_fit(root: Path, pattern: str, most: int) -> list[str]:
    """The files below a directory whose names fit a glob, newest first."""
    fits = _glob(pattern)
    found = [(path, relative) for path, relative in _files(root) if fits(relative)]
    found.sort(key=lambda item: _changed(item[0]), reverse=True)
    return [relative for _, relative in found[:most]]


def lines_that_fit(root: Path, pattern: str, glob: str | None, most: int) -> list[str]:
    """The lines below a directory, or of a file, that fit an expression, as `path:number:text`.

    ripgrep finds them where it is installed, and else Python.

    Raises:
        ToolError: the expression is none.
    """
    ripgrep = shutil.which("rg")
    if ripgrep is None:
        return list(islice(_lines(root, pattern, glob), most))
    command = [ripgrep, *_RIPGREP, f"--max-filesize={MAX_FILE}", f"--regexp={pattern}"]
    command += [f"--glob={glob}"] if glob else []
    return [line.removeprefix("./") for line in _written([*command, "--", str(root)], most)]


_RIPGREP = (
    "--line-number",
    "--no-heading",
    "--color=never",
    "--no-config",
    "--max-columns=500",
    "--max-columns-preview",
    "--with-filename",
)


def _written(command: list[str], most: int) -> list[str]:
    """The first lines that a search program writes."""
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process:
            assert process.stdout is not None
            lines = [line.decode("utf-8", "replace").rstrip("\n") for line in islice(process.stdout, most)]
            if len(lines) == most:  # the rest is not wanted
                process.kill()
        errors.seek(0)
        said = errors.read(65536).decode("utf-8", "replace").strip().splitlines()
    if not lines and process.returncode != 0 and said:
        raise ToolError(next((line for line in said if line.startswith("error:")), said[0]))
    return lines


def _lines(root: Path, pattern: str, glob: str | None) -> Iterator[str]:
    try:
        found = re.compile(pattern).search
    except re.error as error:
        raise ToolError(f"{pattern[:200]!r} is no regular expression: {error}") from None
    fits = _glob(glob or "*")
    return (
        f"{relative}:{number}:{line[:MAX_LINE].rstrip()}"
        for path, relative in _files(root)
        if fits(relative)
        for number, line in enumerate(_text(path).split("\n"), 1)
        if found(line[:MAX_LOOKED_AT])
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
    """Whether a path fits: by its name alone if the pattern has no slash.

    `**/` stands for any folders, and `{a,b}` for a or b.
    """
    pattern = pattern.removeprefix("./")
    if "/" not in pattern:
        match = re.compile(_with_choices(fnmatch.translate(pattern))).match
        return lambda path: match(path.rpartition("/")[2]) is not None
    pieces = ["/".join(_part(part) for part in piece.split("/")) for piece in pattern.split("**/")]
    match = re.compile("(?:.*/)?".join(pieces) + r"\Z", re.DOTALL).match
    return lambda path: match(path) is not None


def _part(part: str) -> str:
    """A part of a path as an expression; its stars stop at slashes."""
    inner = re.sub(r"\A\(\?s:|\)\\[Zz]\Z", "", fnmatch.translate(part)) if part else ""
    return _with_choices(inner.replace(".*", "[^/]*"))


def _with_choices(expression: str) -> str:
    """What `fnmatch` made of a glob, which knows no braces, with those of the glob."""
    return _BRACES.sub(lambda found: f"(?:{found[1].replace(',', '|')})", expression)


_BRACES = re.compile(r"\\\{((?:[^\\,]|\\[^{}])*+,(?:[^\\]|\\[^{}])*+)\\\}")
