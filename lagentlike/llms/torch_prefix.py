"""Remembers the keys and values of recent sequences, so that a next turn's prompt is read from where it is new."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.cache_utils import DynamicCache, DynamicLayer

from .tiny.prefix import common_length

__all__ = ["Layers", "TorchPrefixes", "can_be_cut", "state_of"]

Layers = list[tuple[Any, Any]]
"""The keys and values of each layer, `[..., heads, length, width]`."""


@dataclass(frozen=True, slots=True)
class _Entry:
    ids: NDArray[np.int64]
    layers: Layers
    size: int


class TorchPrefixes:
    """Least recently used sequences, at most `capacity` bytes of them; safe to share between threads.

    They are forgotten as soon as a weight of the model has changed.

    Args:
        model: whose keys and values these are.
        capacity: bytes kept in all; 0 keeps nothing.

    Attributes:
        reused_tokens: tokens of prompts that did not have to be read again, so far.
    """

    def __init__(self, model: Any, capacity: int) -> None:
        self._model, self._capacity = model, capacity
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._next = self._size = 0
        self._state = state_of(model)
        self._lock = threading.Lock()
        self.reused_tokens = 0

    def longest(self, ids: list[int]) -> tuple[Layers, int]:
        """The layers of a sequence that begins as `ids` does, and for how many tokens; not all: the last is read."""
        wanted = np.asarray(ids[:-1], np.int64)
        with self._lock:
            self._renew(state_of(self._model))
            found, length = -1, 0
            for key, entry in self._entries.items():
                common = common_length(entry.ids, wanted)
                if common > length:
                    found, length = key, common
            if not length:
                return [], 0
            self._entries.move_to_end(found)
            self.reused_tokens += length
            return self._entries[found].layers, length

    def keep(self, ids: list[int], layers: Layers, state: Any) -> None:
        """Remember a sequence.

        Args:
            ids: its tokens.
            layers: their keys and values, `[heads, length, width]`, which nobody will change.
            state: the `state_of` the model when the first of them was read.
        """
        held = np.asarray(ids, np.int64)
        size = sum(part.numel() * part.element_size() for pair in layers for part in pair)
        with self._lock:
            self._renew(state_of(self._model))
            if size > self._capacity or state != self._state:
                return
            for key, entry in list(self._entries.items()):
                common = common_length(entry.ids, held)
                if common == len(held):
                    self._entries.move_to_end(key)
                    return
                if common == len(entry.ids):
                    self._size -= self._entries.pop(key).size
            self._entries[self._next] = _Entry(held, layers, size)
            self._next += 1
            self._size += size
            while self._size > self._capacity:
                self._size -= self._entries.popitem(last=False)[1].size

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._size = 0

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    def _renew(self, state: Any) -> None:
        if state != self._state:
            self._entries.clear()
            self._size, self._state = 0, state


def state_of(model: Any) -> Any:
    """What changes with every change of a model's weights: where they are, and how often they were written."""
    return [(value.data_ptr(), 0 if value.is_inference() else value._version) for value in model.parameters()]


def can_be_cut(cache: Any) -> bool:
    """Whether a cache holds all keys and values that were read, so that parts of it can be taken and joined."""
    layers = cache.layers if type(cache) is DynamicCache else ()
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
