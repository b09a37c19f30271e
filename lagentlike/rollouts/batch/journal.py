"""The journal of a run: what is done and what failed, a checksummed line each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import StateError
from ...records.encoding import decoded, encoded
from ...records.lines import Damage, read_lines

__all__ = ["VERSION", "journal_line", "read_journal"]

VERSION = 1


def journal_line(kind: str, **entry: Any) -> bytes:
    """A line: 16 hex digits of checksum, a space, and a JSON object with `kind`."""
    text = encoded({"kind": kind, **entry})
    return b"%b %b" % (_checksum(text), text)


def read_journal(path: Path, damages: list[Damage]) -> Iterator[dict[str, Any]]:
    """The entries of a journal; damaged lines go to `damages`. There are none where there is no file."""
    if path.exists():
        yield from read_lines(path, _entry, damages.append)


def _entry(line: bytes) -> dict[str, Any]:
    digits, _, text = line.partition(b" ")
    if digits != _checksum(text):
        raise StateError("the line is damaged: its checksum does not fit")
    entry: dict[str, Any] = decoded(text)
    return entry


def _checksum(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8).hexdigest().encode()
