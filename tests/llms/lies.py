"""Answers with one thing wrong in them: whatever a server sends, a call ends in an answer or in a typed error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from lagentlike.errors import LLMError
from lagentlike.schema import Completion, ToolCall

ODD: list[Any] = [None, True, -1, 1e308, "x", "9" * 30, [None], [[]], {"a": 1}, [{"type": None}], 10**30, {"type": []}]


def mutants(value: Any) -> Iterator[Any]:
    """The value with one node of it replaced by something odd, left out, or doubled, in every place."""
    yield from ODD
    if isinstance(value, dict):
        for name, item in value.items():
            yield {other: kept for other, kept in value.items() if other != name}
            for odd in mutants(item):
                yield {**value, name: odd}
    elif isinstance(value, list):
        for place, item in enumerate(value):
            before, after = value[:place], value[place + 1 :]
            yield [*before, *after]
            yield [*before, item, item, *after]
            for odd in mutants(item):
                yield [*before, odd, *after]


def answers_or_typed_errors(parse: Callable[[bytes], Completion], answer: Any) -> int:
    """Parse each mutant of an answer and look at what it gives; how many there were."""
    made = list(mutants(answer))
    for mutant in made:
        with suppress(LLMError):
            check(parse(json.dumps(mutant).encode()))
    return len(made)


def streamed(assembler: Callable[[], Any]) -> Callable[[bytes], Completion]:
    """What parses a JSON array of events as the stream of them."""

    def parse(body: bytes) -> Completion:
        building = assembler()
        events = json.loads(body)
        for event in events if isinstance(events, list) else [events]:
            for _, so_far in building.feed([json.dumps(event).encode()]):
                assert so_far.model is None or type(so_far.model) is str
        answer: Completion = building.close()[-1][1]
        return answer

    return parse


def check(answer: Completion) -> None:
    """An answer has only what its types say."""
    assert type(answer.text) is type(answer.finish_reason) is str
    assert all(value is None or type(value) is str for value in (answer.model, answer.reasoning))
    for call in answer.tool_calls or ():
        assert type(call) is ToolCall
        assert type(call.name) is type(call.id) is str
        assert type(call.arguments) in (dict, str)
    if answer.usage is not None:
        assert all(type(count) is int for count in (answer.usage.prompt_tokens, answer.usage.completion_tokens))
    if answer.tokens is not None:
        assert all(type(one) is float for one in answer.tokens.logprobs or ())
