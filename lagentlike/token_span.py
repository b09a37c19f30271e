"""The tokens of one answer, whose prompt is kept once however many answers of a conversation begin with it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

__all__ = ["TokenSpan"]

_sharing = threading.Lock()


class _Held:
    """Where the prompt of a span is that shares it: the first so many of ids that only ever grow at their end."""

    __slots__ = ("_held",)
    _held: tuple[list[int], int]


@dataclass(slots=True)
class TokenSpan(_Held):
    """The tokens a model sampled, as the engine gave them.

    `ids` are the sampled token ids, the end-of-turn token included where it was sampled; `logprobs` their natural
    log-probabilities (same length); `prompt_ids` the ids they were sampled from; `top_logprobs`, where they were asked
    for, the likeliest tokens of each step as `(id, log-probability)`; `forced` how many ids at the end of `prompt_ids`
    begin the answer, which a call that must be made does: they are said, and were not sampled.
    """

    ids: list[int]
    logprobs: list[float] | None = None
    prompt_ids: list[int] | None = None
    top_logprobs: list[list[tuple[int, float]]] | None = None
    forced: int = 0

    @property
    def said(self) -> list[int]:
        """The ids of the whole answer: those that it was made to begin with, and those that were sampled."""
        if not self.forced or self.prompt_ids is None:
            return self.ids
        return [*self.prompt_ids[-self.forced :], *self.ids]

    def go_on_from(self, earlier: TokenSpan) -> None:
        """Keep the prompt together with that of an earlier span, where one begins as the other does.

        `prompt_ids` of both stays what it is, a list that is made anew each time it is asked for: change it by setting
        it. So the prompts of a conversation take as much memory as the longest of them.
        """
        prompt, before = self.prompt_ids, earlier.prompt_ids
        if not prompt or not before or earlier is self:
            return
        with _sharing:
            held = earlier._held[0] if earlier._shares else list(before)
            common = min(len(held), len(prompt))
            if held[:common] != prompt[:common]:
                return
            held += prompt[common:]
            for span, length in ((earlier, len(before)), (self, len(prompt))):
                span._held = held, length  # type: ignore[misc]  # it is in the slots of the base class
                if not span._shares:
                    del span.prompt_ids

    @property
    def _shares(self) -> bool:
        """Whether the prompt is kept with others'."""
        try:
            object.__getattribute__(self, "prompt_ids")
        except AttributeError:
            return True
        return False

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name != "prompt_ids":  # which is missing where it is shared
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            held, length = self._held
            return held[:length]

    def __reduce__(self) -> Any:
        return TokenSpan, (self.ids, self.logprobs, self.prompt_ids, self.top_logprobs, self.forced)
