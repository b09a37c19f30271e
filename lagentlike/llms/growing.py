"""An answer that a stream makes grow, as all formats have it."""

from __future__ import annotations

from typing import ClassVar

from ..errors import BadResponse, LLMError, StreamTruncated
from ..schema import Completion
from .ndjson import LineParser
from .sse import EventParser

__all__ = ["GrowingAnswer", "cut_off"]


class GrowingAnswer:
    """What every assembler begins with: the text and the reasoning so far, and the model that they are of.

    Attributes:
        done: whether the answer is complete.
    """

    parser: ClassVar[type[EventParser] | type[LineParser]] = EventParser

    def __init__(self) -> None:
        self.done = False
        self._text = ""
        self._reasoning = ""
        self._model: str | None = None

    @property
    def partial(self) -> str:
        """The text so far."""
        return self._text

    def _so_far(self) -> Completion:
        answer = Completion(self._text)  # and then only what is told: there is one of these for each part
        answer.model = self._model
        if self._reasoning:
            answer.reasoning = self._reasoning
        return answer


def cut_off(begun: bool, sign: str) -> LLMError:
    """The error of a stream that ended without the sign that its answer had ended."""
    if not begun:
        return BadResponse("the stream holds no answer")
    return StreamTruncated(f"the stream ended before the answer did ({sign}): what came is in partial")
