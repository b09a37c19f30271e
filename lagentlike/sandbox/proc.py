"""What Linux's /proc tells of this machine's processes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["all_pids", "ancestors", "descendants"]


def descendants(root: int) -> list[int]:
    """The processes below a process."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        with contextlib.suppress(OSError, ValueError, IndexError):
            children.setdefault(_parent(pid), []).append(pid)
    found: list[int] = []
    level = children.get(root, [])
    while level:
        found += level
        level = [child for pid in level for child in children.get(pid, ())]
    return found


def ancestors() -> list[int]:
    """The processes above this one, as far as they are seen from here."""
    found = [os.getppid()]
    with contextlib.suppress(OSError, ValueError, IndexError):
        while found[-1] > 1:
            found.append(_parent(found[-1]))
    return found


def _parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    return int(stat.rpartition(")")[2].split()[1])


def all_pids() -> list[int]:
    """The processes of this machine."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  # Path objects take 10 times as long
    except OSError:
        return []
