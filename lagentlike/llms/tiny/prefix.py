"""Remembers the keys and values of recent sequences, so that the next turn of a conversation reads only what is new."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lagentlike.llms.tiny.network import Cache, Network

__all__ = ["PrefixStore", "common_length"]

Array = NDArray[np.float32]
_MARKS = 4  # sequence ends whose logits an entry keeps


class _Entry:
    """A sequence that was read: its ids, its cache, and the logits where a prompt ended."""

    def __init__(self, ids: NDArray[np.int32], cache: Cache, marks: dict[int, Array]) -> None:
        self.ids, self.cache, self.marks = ids, cache, marks


class PrefixStore:
    """Least recently used sequences, at most `capacity` tokens of them; safe to share between threads.

    Args:
        network: Whose caches these are.
        capacity: Tokens kept in all; one token of the embedded model takes 6 KiB.
    """

    def __init__(self, network: Network, capacity: int = 8192) -> None:
        self.network, self._capacity = network, capacity
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._next = 0
        self._lock = threading.Lock()
        self.hits = 0
        self.reused_tokens = 0

    def read(self, ids: list[int], extra: int) -> tuple[Cache, Array]:
        """A cache that has read `ids`, with room for `extra` more tokens, and the logits after them."""
        wanted = np.array(ids, np.int32)
        with self._lock:
            entry, shared = self._longest(wanted)
            if entry is not None:
                self.hits += 1
                self.reused_tokens += shared
        if entry is None:
            cache, shared = self.network.cache(len(ids) + extra), 0
        elif shared == len(ids) and shared in entry.marks:
            return entry.cache.prefix(shared, extra), entry.marks[shared]
        else:
            shared = min(shared, len(ids) - 1)
            cache = entry.cache.prefix(shared, len(ids) - shared + extra)
        logits = self.network.prefill(ids[shared:], cache)
        return cache, logits

    def keep(self, ids: list[int], cache: Cache, marks: dict[int, Array]) -> None:
        """Remember a sequence the caller will not change any more.

        Args:
            ids: Tokens of the sequence; the cache holds at least the first of them.
            cache: Their keys and values.
            marks: The logits after some of its prefixes, by length.
        """
        held = np.array(ids[: cache.length], np.int32)
        if len(held) > self._capacity:
            return
        with self._lock:
            marks = dict(marks)
            for key, entry in list(self._entries.items()):
                common = common_length(entry.ids, held)
                if common == len(entry.ids):
                    marks = {**entry.marks, **marks}
                    del self._entries[key]
                elif common == len(held):
                    entry.marks.update(marks)
                    _trim(entry.marks)
                    self._entries.move_to_end(key)
                    return
            _trim(marks)
            self._entries[self._next] = _Entry(held, cache, marks)
            self._next += 1
            while (
                sum(entry.cache.values.shape[3] for entry in self._entries.values()) > self._capacity
                and len(self._entries) > 1
            ):
                self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def _longest(self, wanted: NDArray[np.int32]) -> tuple[_Entry | None, int]:
        best, length, found = None, 0, -1
        for key, entry in self._entries.items():
            common = common_length(entry.ids, wanted)
            if common > length or (common == length and common in entry.marks and best is not None):
                best, length, found = entry, common, key
        if best is not None:
            self._entries.move_to_end(found)
        return best, length


def common_length(a: NDArray[Any], b: NDArray[Any]) -> int:
    """Length of the common beginning of two sequences."""
    size = min(len(a), len(b))
    different = (a[:size] != b[:size]).argmax() if size else 0
    return size if size == 0 or a[different] == b[different] else int(different)


def _trim(marks: dict[int, Array]) -> None:
    for length in sorted(marks)[:-_MARKS]:
        del marks[length]
