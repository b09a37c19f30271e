"""Unified diffs: read and apply them, in linear time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import ToolError

__all__ = ["apply_hunks", "FilePatch", "Hunk", "parse_diff"]


@dataclass
class Hunk:
    """One change: lines of the old text and the lines that take their place.

    Attributes:
        start: number of the first old line, counted from 1; 0 where there are none.
        old, new: lines with their ends; the last one has none where the diff says so.
    """

    start: int
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)


@dataclass
class FilePatch:
    """The changes of one file.

    Attributes:
        old_path, new_path: its name before and after; None where it is not there.
    """

    old_path: str | None
    new_path: str | None
    hunks: list[Hunk] = field(default_factory=list)


def parse_diff(text: str) -> list[FilePatch]:
    """Read a unified diff of one or more files, as `diff -u` and `git diff` write it.

    Raises:
        ToolError: it is none; the message names the line.
    """
    patches: list[FilePatch] = []
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    position = 0
    while position < len(lines):
        line = lines[position].rstrip("\r")
        if line.startswith("--- ") and position + 1 < len(lines) and lines[position + 1].startswith("+++ "):
            patches.append(FilePatch(_path(line), _path(lines[position + 1].rstrip("\r"))))
            position += 2
        elif line.startswith("@@"):
            if not patches:
                raise ToolError(f"line {position + 1} of the diff is a hunk without --- and +++ lines before it")
            hunk, position = _hunk(lines, position)
            patches[-1].hunks.append(hunk)
        else:
            position += 1  # `diff --git`, `index` and what people write between
    if not any(patch.hunks for patch in patches):
        raise ToolError("this is no unified diff: it needs lines with ---, +++ and @@ -1,3 +1,4 @@")
    return patches


def apply_hunks(text: str, hunks: Sequence[Hunk]) -> str:
    """The text with the hunks' changes; a hunk whose line numbers are off is found if its lines are there just once.

    Raises:
        ToolError: a hunk does not fit.
    """
    if "\r\n" in text and not any("\r" in line for hunk in hunks for line in hunk.old + hunk.new):
        return apply_hunks(text.replace("\r\n", "\n"), hunks).replace("\n", "\r\n")  # as models write such lines
    lines = [line for line in re.split(r"(?<=\n)", text) if line]
    done: list[str] = []
    position = 0
    for number, hunk in enumerate(hunks, 1):
        start = _place(lines, position, hunk, number)
        done += lines[position:start]
        done += _ended(hunk.new, start + len(hunk.old) < len(lines))
        position = start + len(hunk.old)
    return "".join(done + lines[position:])


def _hunk(lines: Sequence[str], position: int) -> tuple[Hunk, int]:
    header = _HEADER.match(lines[position])
    if header is None:
        raise ToolError(f"line {position + 1} of the diff is no hunk header such as @@ -1,3 +1,4 @@")
    olds, news = (int(header[name]) if header[name] else 1 for name in ("olds", "news"))
    hunk = Hunk(int(header["start"]))
    position += 1
    while (len(hunk.old) < olds or len(hunk.new) < news) and position < len(lines):
        mark, body = lines[position][:1], lines[position][1:] + "\n"
        if mark not in ("", " ", "-", "+", "\r"):
            break
        if mark != "+":
            hunk.old.append(body if mark else "\n")
        if mark != "-":
            hunk.new.append(body if mark else "\n")
        position += 1
        if position < len(lines) and lines[position].startswith("\\"):  # \ No newline at end of file
            for side in [hunk.old] if mark == "-" else [hunk.new] if mark == "+" else [hunk.old, hunk.new]:
                side[-1] = side[-1].removesuffix("\n")
            position += 1
    if len(hunk.old) != olds or len(hunk.new) != news:
        raise ToolError(
            f"the hunk {header[0].strip()!r} has {len(hunk.old)} old and {len(hunk.new)} new lines, and not the "
            f"{olds} and {news} that it tells of"
        )
    return hunk, position


def _place(lines: Sequence[str], begin: int, hunk: Hunk, number: int) -> int:
    """Where a hunk's old lines are."""
    expected = hunk.start - 1 if hunk.old else hunk.start
    if expected >= begin and _fits(lines, expected, hunk.old):
        return expected
    if not hunk.old:
        raise ToolError(f"hunk {number} adds lines after line {hunk.start}, and there are {len(lines)} lines")
    first = hunk.old[0]
    places = [
        place
        for place in range(begin, len(lines) - len(hunk.old) + 1)
        if lines[place] == first and _fits(lines, place, hunk.old)
    ]
    if len(places) == 1:
        return places[0]
    if places:
        where = ", ".join(str(place + 1) for place in places[:10])
        raise ToolError(f"hunk {number} fits at lines {where} and not at {hunk.start}: give more lines around it")
    raise ToolError(f"hunk {number} does not fit: read the file again; line {hunk.start} is {_shown(lines, expected)}")


def _fits(lines: Sequence[str], place: int, old: Sequence[str]) -> bool:
    if place < 0 or place + len(old) > len(lines):
        return False
    found = lines[place : place + len(old)]
    return found == old or [line.rstrip("\n") for line in found] == [line.rstrip("\n") for line in old]


def _ended(new: list[str], more_follows: bool) -> list[str]:
    """New lines with an end on each that others follow."""
    return [
        line if line.endswith("\n") or (number == len(new) and not more_follows) else line + "\n"
        for number, line in enumerate(new, 1)
    ]


def _path(line: str) -> str | None:
    path = line[4:].split("\t")[0].strip()
    if len(path) > 1 and path[0] == path[-1] == '"':  # as git writes names that are not plain
        path = _ESCAPE.sub(_meant, path[1:-1].encode()).decode("utf-8", "replace")
    if path == "/dev/null":
        return None
    return path[2:] if path.startswith(("a/", "b/")) else path


def _meant(escape: re.Match[bytes]) -> bytes:
    letter = escape[1]
    return bytes([int(letter, 8) & 255]) if len(letter) == 3 else _ESCAPED.get(letter, letter)


def _shown(lines: Sequence[str], place: int) -> str:
    return repr(lines[place].rstrip("\n")[:200]) if 0 <= place < len(lines) else "not there"


_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPED = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_HEADER = re.compile(r"@@ -(?P<start>\d+)(?:,(?P<olds>\d+))? \+\d+(?:,(?P<news>\d+))? @@")
