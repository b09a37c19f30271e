"""An answer as JSON data, exact to the last bit, with the parts in which it came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from ..schema import Completion, to_plain, TokenSpan, ToolCall, Usage
from .base import Part

__all__ = ["Parts", "answer_of", "parts_of", "plain_answer"]


def plain_answer(answer: Completion) -> dict[str, Any]:
    """An answer as plain data; what it does not have is left out."""
    plain: dict[str, Any] = {"text": answer.text}
    for name, value in answer.extras().items():
        if value is None:
            continue
        if name == "tokens":  # their log-probabilities may be infinite
            plain[name] = {field.name: getattr(value, field.name) for field in fields(TokenSpan)}
        else:
            plain[name] = to_plain(value, name)
    for name in plain.keys() & {"usage", "tokens"}:
        plain[name] = _telling(plain[name])
    if "tool_calls" in plain:
        plain["tool_calls"] = [_telling(call, "name", "arguments") for call in plain["tool_calls"]]
    return plain


def answer_of(plain: Mapping[str, Any]) -> Completion:
    """The answer that was made plain.

    Raises:
        ValueError: it is none.
    """
    extras = dict(plain)
    try:
        text = extras.pop("text")
        if not isinstance(text, str):
            raise TypeError(f"its text is {text!r}")
        if "tool_calls" in extras:
            extras["tool_calls"] = [ToolCall(**call) for call in extras["tool_calls"]]
        if "usage" in extras:
            extras["usage"] = Usage(**extras["usage"])
        if "tokens" in extras:
            tokens = TokenSpan(**extras["tokens"])
            if tokens.top_logprobs is not None:
                tokens.top_logprobs = [[(id_, logprob) for id_, logprob in step] for step in tokens.top_logprobs]
            extras["tokens"] = tokens
        return Completion(text, **extras)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no answer of a model: {error}") from error


class Parts:
    """The parts of a stream, noted as they come."""

    def __init__(self) -> None:
        self.noted: list[Any] = []
        self._is_whole = False
        self._reasoning = 0
        self._tokens = 0

    def add(self, chunk: str, answer: Completion) -> None:
        """Note one part: a text; or, where reasoning or tokens grew too, `[text, characters, tokens]` so far."""
        self._is_whole = answer.finish_reason is not None
        reasoning = len(answer.reasoning or "")
        tokens = 0 if answer.tokens is None else len(answer.tokens.ids)
        if (reasoning, tokens) == (self._reasoning, self._tokens):
            self.noted.append(chunk)
            return
        self._reasoning, self._tokens = reasoning, tokens
        self.noted.append([chunk, reasoning, tokens])

    def ended(self, answer: Completion) -> list[Any]:
        """All parts, now that the whole answer is there: the last one comes with it."""
        if not self._is_whole:
            self.add("", answer)
        return self.noted


def parts_of(noted: Iterable[Any] | None, answer: Completion) -> Iterator[Part]:
    """The parts again, each with the answer up to it; the last one with the whole. Without notes there is one."""
    parts = [answer.text] if noted is None else list(noted)
    text, reasoning, tokens = "", 0, 0
    for part in parts[:-1]:
        chunk = part
        if not isinstance(part, str):
            chunk, reasoning, tokens = part
        text += chunk
        yield chunk, _so_far(answer, text, reasoning, tokens)
    last = parts[-1] if parts else ""
    yield last if isinstance(last, str) else last[0], answer


def _so_far(answer: Completion, text: str, reasoning: int, tokens: int) -> Completion:
    span, whole = None, answer.tokens
    if tokens and whole is not None:
        top = whole.top_logprobs
        span = TokenSpan(
            whole.ids[:tokens],
            None if whole.logprobs is None else whole.logprobs[:tokens],
            whole.prompt_ids,
            None if top is None else top[:tokens],
        )
    thinking = (answer.reasoning or "")[:reasoning] or None
    return Completion(text, reasoning=thinking, model=answer.model, tokens=span)


def _telling(values: Mapping[str, Any], *always: str) -> dict[str, Any]:
    """The fields that tell something."""
    return {name: value for name, value in values.items() if name in always or value not in (None, 0, "")}
