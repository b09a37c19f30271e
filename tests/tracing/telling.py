"""A tracer that keeps what it is told, and agents to tell of."""

from __future__ import annotations

from typing import Any

from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.schema import Completion
from lagentlike.tracing import Span, Tracer


class Listener(Tracer):
    """Keeps what it is told.

    Attributes:
        spans: all spans, in the order in which they began.
        ended: what those were that ended, in the order of that.
        parts: new text and the answer so far, of each part of a streamed request.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.ended: list[dict[str, Any]] = []
        self.parts: list[tuple[str, str]] = []

    @property
    def open(self) -> list[Span]:
        return [span for span in self.spans if span.seconds is None]

    def named(self, name: str) -> dict[str, Any]:
        """The first span of that name that ended."""
        return next(span for span in self.ended if span["name"] == name)

    def begin(self, span: Span) -> None:
        self.spans.append(span)

    def part(self, span: Span, text: str, answer: Completion) -> None:
        assert span in self.open
        self.parts.append((text, answer.text))

    def end(self, span: Span) -> None:
        self.ended.append(span.plain(content=True))


async def ask(agent: Any, text: str = "Q") -> None:
    """Ask an agent of any colour, and read what it gives to the end."""
    if not agent.colour.is_async:
        list(agent(text)) if agent.colour.is_streaming else agent(text)
    elif agent.colour.is_streaming:
        [part async for part in agent(text)]
    else:
        await agent(text)


def llm_for(kind: Any, script: Any, **options: Any) -> Any:
    """A scripted model in the colour of a class of agents."""
    return (AsyncScriptedLLM if kind.colour.is_async else ScriptedLLM)(script, **options)
