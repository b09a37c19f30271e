"""The policy as a language model for agents, which answers with the weights of the moment."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, Self

from ..llms.base import Conversation, Params
from ..llms.huggingface import AsyncHFTransformer
from ..llms.local import AsyncLocalLLM
from ..llms.tiny.engine import TinyEngine
from ..llms.tiny.llm import AsyncTinyLM

__all__ = ["Draws", "PolicyLM", "PolicyTransformer"]


class Draws:
    """Seeds for sampling that repeat, in whatever order requests arrive.

    The n-th request for the same conversation in the same round always gets the same seed. Which chain makes it does
    not matter: up to there, the chains are the same.
    """

    def __init__(self) -> None:
        self._round = ""
        self._asked: Counter[str] = Counter()

    def begin(self, *round_: int) -> None:
        """Begin a round; its numbers, such as a seed and a step, tell it from all others."""
        self._round = ":".join(map(str, round_))
        self._asked.clear()

    def seed(self, messages: Conversation) -> int:
        """The seed of the next request for a conversation."""
        said = [
            (
                message["role"],
                message.get("content"),
                [call.get("function") for call in message.get("tool_calls") or ()],
            )
            for message in messages  # without the ids of calls, which are drawn anew each time
        ]
        asked = json.dumps(said, default=str)
        self._asked[asked] += 1
        text = f"{self._round}/{self._asked[asked]}/{asked}"
        return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


class _Drawn(AsyncLocalLLM):
    """A model of this process whose requests draw with seeds from a policy's `Draws`."""

    draws: Draws

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # copies of an agent sample from the one policy

    def _request(self, messages: Conversation, params: Params, index: int = 0) -> Any:
        if params.get("seed") is None:
            params = {**params, "seed": self.draws.seed(messages)}
        return super()._request(messages, params, index)


class PolicyLM(_Drawn, AsyncTinyLM):
    """An `AsyncTinyLM` over an engine of its own, which training changes; it samples at temperature 1 by default.

    Args:
        engine: the engine; the one that `TinyLM` objects share is never changed.
        draws: where the seeds come from of requests that have none.
        **gen_params: as for `AsyncTinyLM`.
    """

    def __init__(self, engine: TinyEngine, draws: Draws, **gen_params: Any) -> None:
        self._engine = engine
        self.draws = draws
        super().__init__(engine.path, **{"temperature": 1.0, **gen_params})

    @property
    def engine(self) -> TinyEngine:
        """The engine behind it."""
        return self._engine

    async def _load(self) -> None:
        """There is nothing to read."""


class PolicyTransformer(_Drawn, AsyncHFTransformer):
    """An `AsyncHFTransformer` over the module that is trained; it samples at temperature 1 by default.

    Args:
        model: the module; or the engine of another such object, which is then shared.
        folder: where the tokenizer is.
        draws: where the seeds come from of requests that have none.
        **gen_params: as for `AsyncHFTransformer`.
    """

    def __init__(self, model: Any, folder: Path, draws: Draws, **gen_params: Any) -> None:
        self.draws = draws
        super().__init__(folder, model=model, **{"temperature": 1.0, **gen_params})
