"""The rows of a dataset file, read one after the other however many there are."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InvalidArgument
from ...records.encoding import decoded
from .keys import content_hash, sample_key

__all__ = ["Dataset", "Sample"]

_PROMPT = {"messages", "prompt"}


@dataclass(slots=True)
class Sample:
    """One sample to make.

    Attributes:
        key: its id.
        number: number of the row, from 0.
        sample: number of the sample for that row, from 0.
        row: the row.
        attempts: how often it failed.
        deaths: how many workers ended while they had it.
    """

    key: str
    number: int
    sample: int
    row: dict[str, Any]
    attempts: int = 0
    deaths: int = 0


class Dataset:
    """A dataset file, looked through once when it is opened.

    Args:
        path: JSON lines, each an object with `prompt` or `messages`.

    Raises:
        InvalidArgument: it cannot be read, or a line is no such row; the message says which and why.

    Attributes:
        rows: how many there are.
        keys: the keys that rows have besides, as many sets of them as there are.
        fingerprint: stands for the content of all of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: set[frozenset[str]] = set()
        hashes, everything = array("Q"), hashlib.blake2b(digest_size=16)
        for _, row in self._rows(check=True):
            found = content_hash(row)
            everything.update(found)
            hashes.append(int.from_bytes(found[:8], "big"))
            self.keys.add(frozenset(row) - _PROMPT)
        self.rows = len(hashes)
        self.fingerprint = everything.hexdigest()
        if not self.rows:
            raise InvalidArgument("dataset_file", str(path), "the file holds no row")
        ordered = np.frombuffer(hashes, np.uint64)
        ordered.sort()  # where it is: a copy would be most of the memory of a long dataset
        self._repeated = frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())

    def samples(self, config: bytes, num_samples: int, max_rows: int | None) -> Iterator[Sample]:
        """Every sample to make, row by row."""
        seen: Counter[bytes] = Counter()  # of rows that are there more than once
        for number, row in islice(self._rows(), max_rows):
            found, occurrence = content_hash(row), 0
            if int.from_bytes(found[:8], "big") in self._repeated:
                occurrence = seen[found]
                seen[found] += 1
            for sample in range(num_samples):
                yield Sample(sample_key(found, occurrence, sample, config), number, sample, row)

    def _rows(self, check: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows with their numbers, from 0."""
        number = 0
        try:
            with self.path.open("rb") as file:
                for place, line in enumerate(file, 1):
                    if line.isspace():
                        continue
                    yield number, _row(line, f"{self.path}, line {place}", check)
                    number += 1
        except OSError as error:
            raise InvalidArgument("dataset_file", str(self.path), f"it cannot be read: {error.strerror}") from error


def _row(line: bytes, where: str, check: bool) -> dict[str, Any]:
    try:
        row = decoded(line)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("dataset_file", where, f"this is no JSON, one object a line: {error}") from None
    if check:
        _check(row, where)
    return row  # type: ignore[no-any-return]  # checked the first time


def _check(row: Any, where: str) -> None:
    if not isinstance(row, dict) or ("messages" in row) == ("prompt" in row):
        raise InvalidArgument("dataset_file", where, "give an object with 'prompt' or 'messages', not with both")
    prompt, messages = row.get("prompt"), row.get("messages")
    if "prompt" in row and not isinstance(prompt, str):
        raise InvalidArgument("dataset_file", where, "'prompt' is a text; a list of chat messages is 'messages'")
    if "messages" in row and not (
        isinstance(messages, list)
        and messages
        and all(isinstance(message, dict) and "role" in message for message in messages)
        and messages[-1]["role"] == "user"
        and isinstance(messages[-1].get("content"), str | list)
    ):
        raise InvalidArgument(
            "dataset_file",
            where,
            "'messages' is a list of chat messages that ends with the user's: a text, or content in parts",
        )
