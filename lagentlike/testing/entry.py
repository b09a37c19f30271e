"""One call of a tape, as a line of its file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import LLMError, NotRecorded
from ..llms.base import Part
from ..llms.kept_answer import answer_of, parts_of
from ..records.plain_errors import error_of, fields_of, kind_of
from ..schema import ActionReturn, ActionStatusCode, ActionValidCode, Completion, to_plain

__all__ = ["Entry", "plain_error", "plain_result"]


@dataclass
class Entry:
    """A model request or a tool call, and what came of it.

    Attributes:
        call: `"model"` or `"tool"`.
        hash: of what it asks for.
        request: that itself: `model`, `messages` and `params`; or `name` and `arguments`.
        answer: the model's, as far as it came.
        parts: in which it came, where it was streamed; `seconds`: when each of them came.
        error: what the model's call failed with.
        left: whether nobody read the stream to its end.
        result: what the tool gave.
        line: where it stands in the file, from 1.
    """

    call: str
    hash: str
    request: dict[str, Any]
    answer: dict[str, Any] | None = None
    parts: list[Any] | None = None
    seconds: list[float] | None = None
    error: dict[str, Any] | None = None
    left: bool = False
    result: dict[str, Any] | None = None
    line: int = 0

    @classmethod
    def read(cls, line: bytes) -> Entry:
        """The entry of a line.

        Raises:
            ValueError: it is none.
        """
        value = json.loads(line)
        try:
            request = {name: value.pop(name) for name in _REQUESTS[value["call"]]}
            entry = cls(request=request, **value)
            entry._try()
        except (TypeError, KeyError, AttributeError, IndexError) as error:
            raise ValueError(f"it is no entry of a tape ({type(error).__name__}: {error})") from error
        return entry

    def written(self) -> bytes:
        """The entry as a line, without the line's end."""
        value = {"call": self.call, "hash": self.hash, **self.request}
        for name in ("answer", "parts", "seconds", "error", "left", "result"):
            if getattr(self, name) not in (None, False):
                value[name] = getattr(self, name)
        try:
            return json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half a character, which is no UTF-8
            return json.dumps(value).encode()

    def completion(self) -> Completion:
        """The model's answer, or its error."""
        self._fail()
        assert self.answer is not None  # it was tried
        return answer_of(self.answer)

    def played(self) -> Iterator[tuple[float, Part]]:
        """The parts of the model's answer, each with the seconds after which it came; then its error, if it failed."""
        yield from self._came()
        self._fail()

    def returned(self, arguments: dict[str, Any]) -> ActionReturn:
        """The tool's result."""
        fields: dict[str, Any] = {"args": arguments, **(self.result or {})}
        fields["state"] = ActionStatusCode[fields.get("state", "SUCCESS")]
        fields["valid"] = ActionValidCode[fields.get("valid", "OPEN")]
        return ActionReturn(**fields)

    def _try(self) -> None:
        """Play it once, so that what is damaged in a file is known when the file is read."""
        if self.call == "tool":
            self.returned({})
            return
        for _ in self._came():
            continue
        if self._failure() is None and not self.left and self.answer is None:
            raise TypeError("it has neither an answer nor an error")

    def _came(self) -> Iterator[tuple[float, Part]]:
        if self.answer is not None:
            parts = parts_of(self.parts, answer_of(self.answer))
            times = self.seconds or []
            for place, part in enumerate(parts):
                yield float(times[place]) if place < len(times) else 0.0, part

    def _failure(self) -> LLMError | None:
        if self.error is None:
            return None
        fields = dict(self.error)
        error = error_of(fields.pop("type", ""), fields.pop("message", ""), fields, LLMError)
        if not isinstance(error, LLMError):
            raise TypeError(f"{type(error).__name__} is no error of a model")
        return error

    def _fail(self) -> None:
        failure = self._failure()
        if failure is not None:
            raise failure
        if self.left:
            raise NotRecorded(
                f"line {self.line} of the tape holds a stream that was not read to its end when it was recorded, and "
                "now somebody wants the rest: record it anew"
            )


_REQUESTS = {"model": ("model", "messages", "params"), "tool": ("name", "arguments")}


def plain_error(error: LLMError) -> dict[str, Any]:
    """An error of a model, as plain data."""
    told = {name: value for name, value in fields_of(error).items() if value not in (None, "")}
    return {"type": kind_of(error), "message": str(error), **told}


def plain_result(result: ActionReturn) -> dict[str, Any]:
    """A tool's result, as plain data; its arguments stand in the request.

    Raises:
        TypeError: it has no JSON form.
    """
    named: dict[str, Any] = {"state": result.state.name, "valid": result.valid.name}
    told: Mapping[str, Any] = {name: getattr(result, name) for name in ("type", "url", "result", "errmsg", "thought")}
    plain = {name: to_plain(value, name) for name, value in told.items() if value is not None}
    return plain | {name: value for name, value in named.items() if value not in ("SUCCESS", "OPEN")}
