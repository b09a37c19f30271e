"""Ids of samples that stay the same however often a run is begun again."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson

__all__ = ["KeySet", "content_hash", "sample_key"]


def content_hash(value: Any) -> bytes:
    """16 bytes that stand for plain JSON data, however its keys are ordered."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer beyond 64 bits, or half a surrogate pair
        text = json.dumps(value, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=16).digest()


def sample_key(row: bytes, occurrence: int, sample: int, config: bytes) -> str:
    """The id of a sample.

    Args:
        row: hash of the row's content.
        occurrence: how many rows with the same content come before it.
        sample: number of the sample for the row.
        config: hash of the configuration.
    """
    return hashlib.blake2b(b"%b%b %d %d" % (row, config, occurrence, sample), digest_size=16).hexdigest()


class KeySet:
    """A set of keys that takes 8 bytes for each: the first half of a key stands for it."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._new = array("Q")
        self._sorted = np.empty(0, np.uint64)
        for key in keys:
            self.add(key)

    def add(self, key: str) -> None:
        """Put a key in; looking keys up while adding some costs a sort each time."""
        self._new.append(int(key[:16], 16))

    def __contains__(self, key: str) -> bool:
        known = self._known()
        if not len(known):
            return False
        value = np.uint64(int(key[:16], 16))
        place = int(known.searchsorted(value))
        return place < len(known) and known[place] == value

    def __len__(self) -> int:
        return len(self._known())

    def without(self, other: KeySet) -> int:
        """How many keys the other set has not."""
        return len(np.setdiff1d(self._known(), other._known(), assume_unique=True))

    def _known(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        if self._new:
            added = np.frombuffer(self._new, np.uint64)
            self._sorted = np.unique(np.concatenate([self._sorted, added]))
            self._new = array("Q")
        return self._sorted
