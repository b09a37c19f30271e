"""Trajectories as JSON lines: one a line, nothing lost."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import StateError
from ...trajectory import Trajectory

__all__ = ["as_line", "from_jsonl", "from_line", "to_jsonl"]


def to_jsonl(trajectories: Iterable[Trajectory], path: str | os.PathLike[str]) -> int:
    """Write trajectories to a file, one a line; the file appears when it is whole.

    Returns:
        How many were written.

    Raises:
        TypeError: something in one has no JSON form; the message names which and where.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    count = 0
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            for count, trajectory in enumerate(trajectories, 1):
                file.write(as_line(trajectory, f"trajectory {count - 1}: ") + "\n")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return count


def from_jsonl(path: str | os.PathLike[str]) -> list[Trajectory]:
    """The trajectories that `to_jsonl` wrote.

    Raises:
        StateError: a line is no saved trajectory; the message says which and what is wrong.
    """
    with Path(path).open(encoding="utf-8", newline="\n") as file:
        return [from_line(line, f"{path}:{number}: ") for number, line in enumerate(file, 1) if line.strip()]


def as_line(trajectory: Trajectory, where: str = "") -> str:
    """A trajectory as one line of JSON."""
    try:
        saved = trajectory.to_dict()
    except TypeError as error:
        raise TypeError(f"{where}{error}") from None
    text = json.dumps(saved, ensure_ascii=False, separators=(",", ":"))
    return text if _is_unicode(text) else json.dumps(saved, separators=(",", ":"))


def from_line(line: str, where: str = "") -> Trajectory:
    """The trajectory that `as_line` wrote."""
    try:
        saved: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{where}this is no JSON: {error}") from None
    if not isinstance(saved, dict):
        raise StateError(f"{where}this is no saved trajectory, but a {type(saved).__name__}")
    try:
        return Trajectory.from_dict(saved)
    except StateError as error:
        raise StateError(f"{where}{error}") from None


def _is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; one with half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
