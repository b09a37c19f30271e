"""The embedded model as a language model like any other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from ...concurrency import in_thread
from ...errors import InvalidArgument
from ..local import _Local, AsyncLocalLLM, LocalLLM, sampling
from ..scheduler import Scheduler
from .decoder import TinyDecoder
from .engine import TinyEngine

__all__ = ["AsyncTinyLM", "TinyLM"]


class _Tiny(_Local):
    """What both colours share: the engine, and ids to text and back."""

    kind: ClassVar[str] = "TinyLM"

    def _use(self, path: str | os.PathLike[str] | None) -> None:
        if path is not None and not Path(path).is_dir():
            raise InvalidArgument(
                "path", os.fspath(path), "give a directory with weights, or None; GPTAPI asks the model of a server"
            )
        self._folder = None if path is None else Path(path)
        sampling(self.gen_params, self.kind)

    @property
    def engine(self) -> TinyEngine:
        """The engine behind it; all objects over one directory share it."""
        return TinyEngine.load(self._folder)

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self.engine.encode(text)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self.engine.decode(ids)

    def token_bytes(self, id_: int) -> bytes:
        """The bytes that a token stands for; a token may be part of a character."""
        return self.engine.token_bytes(id_)

    @property
    def _vocab_size(self) -> int:
        return self.engine.network.vocab_size

    @property
    def _scheduler(self) -> Scheduler:
        return _scheduler_of(self.engine)


class TinyLM(_Tiny, LocalLLM):
    """The language model that the package carries: it runs anywhere, needs no key and no network.

    A demonstration and test model of a few million parameters: it calls tools, writes small Python programs, plays a
    writer and a critic, and knows nothing of the world. Use a real model for real work; nothing else changes.

    Args:
        path: Hugging Face directory of another model of its kind; None for the one in the package.
        max_new_tokens: most tokens an answer may have.
        temperature: 0 takes the most likely token, so that the same prompt gives the same answer.
        top_p, top_k: keep the likeliest tokens only; they matter where `temperature` is above 0.
        repetition_penalty: above 1 makes tokens that are there already less likely.
        stop_words: texts that end an answer; they are not part of it.
        seed: makes sampling repeatable; conversation i of a batch draws with `seed + i`.
        **gen_params: `logprobs=True` gives token ids and log-probabilities in `Completion.tokens`, `top_logprobs=k`
            the k likeliest tokens of each step as well; `tools` takes JSON schemas; `tool_choice` is "auto",
            "none", "required" or names a function, which is then called: those words are given, not sampled;
            `prompt_ids` takes the token ids to go on from, instead of the messages (for a batch, a list of lists).

    Raises:
        InvalidArgument: a parameter is unknown or out of range.

    Calls made at the same time, from threads or tasks, are decoded as one batch.

    >>> TinyLM().chat([{"role": "user", "content": "Hello"}]).finish_reason
    'stop'
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        temperature: float | None = 0.0,
        seed: int | None = None,
        **gen_params: Any,
    ) -> None:
        super().__init__(_name(path), temperature=temperature, seed=seed, **gen_params)
        self._use(path)


class AsyncTinyLM(_Tiny, AsyncLocalLLM):
    """The async form of `TinyLM`: tasks that ask at the same time are answered as one batch, beside the event loop."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        temperature: float | None = 0.0,
        seed: int | None = None,
        **gen_params: Any,
    ) -> None:
        super().__init__(_name(path), temperature=temperature, seed=seed, **gen_params)
        self._use(path)

    async def _load(self) -> None:
        """Read the weights beside the event loop, the first time."""
        if self._folder not in _loaded:
            await in_thread(TinyEngine.load, self._folder)
            _loaded.add(self._folder)


def _name(path: str | os.PathLike[str] | None) -> str:
    return "tinylm" if path is None else Path(path).name


def _scheduler_of(engine: TinyEngine) -> Scheduler:
    """The one scheduler of an engine; both are forgotten when nobody works with them."""
    with _guard:
        found = _schedulers.get(engine)
        if found is None:
            found = _schedulers[engine] = Scheduler(lambda: TinyDecoder(engine), "lagentlike-tiny")
        return found


_guard = threading.Lock()
_schedulers: WeakValueDictionary[TinyEngine, Scheduler] = WeakValueDictionary()
_loaded: set[Path | None] = set()
