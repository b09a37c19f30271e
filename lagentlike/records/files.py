"""Trajectory files: a ShareGPT file for others to read, and beside it the records that it is derived from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .encoding import encoded
from .lines import append_lines, Damage, read_lines
from .record import ConversationRecord
from .sharegpt import to_sharegpt

__all__ = ["append_record", "append_records", "read_records", "records_beside", "sharegpt_line"]

_FILE = "trajectories.jsonl"


def append_record(target: str | os.PathLike[str], record: ConversationRecord) -> Path:
    """Append a record to a trajectory file, durably; threads and processes may do so at once.

    Args:
        target: a `.jsonl` file, or a folder, which gets a `trajectories.jsonl`. It takes the ShareGPT form; the record
            itself goes first, into the file of the same name in the folder `records` beside it.
        record: what to keep.

    Returns:
        The ShareGPT file.

    Raises:
        TypeError: something in the record has no JSON form; the message names where it is.
        OSError: it could not be written; neither file is damaged.

    >>> import tempfile
    >>> from lagentlike.schema import AgentMessage
    >>> said = [AgentMessage(content="1 + 1?"), AgentMessage(content="2", sender="agent")]
    >>> path = append_record(tempfile.mkdtemp(), ConversationRecord("first", "tiny", said))
    >>> [record.messages[-1].content for record in read_records(records_beside(path))]
    ['2']
    """
    return append_records(target, [record])


def append_records(target: str | os.PathLike[str], records: Iterable[ConversationRecord]) -> Path:
    """Append several records at once; see `append_record`."""
    path = Path(target)
    if path.suffix != ".jsonl":
        path = path / _FILE
    kept = list(records)
    native, derived = [record.to_line() for record in kept], [sharegpt_line(record) for record in kept]
    append_lines(records_beside(path), native)
    append_lines(path, derived)
    return path


def records_beside(path: str | os.PathLike[str]) -> Path:
    """Where the records are that a trajectory file is derived from."""
    path = Path(path)
    return path.parent / "records" / path.name


def sharegpt_line(record: ConversationRecord) -> bytes:
    """A record in ShareGPT form as a line without its line break."""
    return encoded(to_sharegpt(record))


def read_records(
    path: str | os.PathLike[str], on_damage: Callable[[Damage], Any] | None = None
) -> Iterator[ConversationRecord]:
    """The records of a file, each with its checksum verified.

    Args:
        path: the file of records; see `records_beside`.
        on_damage: told of each damaged line, which is left out.

    Raises:
        StateError: a line is damaged and there is no `on_damage`. A torn last line only gives a warning.
    """
    return read_lines(path, ConversationRecord.from_line, on_damage)
