"""Random conversations, with all that a record can hold."""

from __future__ import annotations

from hypothesis import strategies as st

from lagentlike.records import ConversationRecord
from lagentlike.schema import AgentMessage, TokenSpan, ToolCall, ToolResult, Usage

texts = st.text(st.characters(codec="utf-8"), max_size=40)
words = texts.filter(lambda text: text and "<" not in text)  # `<think>` in a text would be taken for thinking
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
usages = st.builds(Usage, *[st.integers(0, 10_000)] * 5)
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}]


@st.composite
def spans(draw: st.DrawFn) -> TokenSpan:
    ids = draw(st.lists(st.integers(0, 200_000), max_size=5))
    logprobs = draw(st.none() | st.lists(st.floats(-50, 0), min_size=len(ids), max_size=len(ids)))
    return TokenSpan(ids, logprobs, draw(st.none() | st.lists(st.integers(0, 9), max_size=5)))


@st.composite
def turns(draw: st.DrawFn, number: int) -> list[AgentMessage]:
    """A user's message and the agent's answer to it, with calls and their results on the way."""
    messages = [AgentMessage(content=draw(words))]
    for step in range(draw(st.integers(0, 2))):
        arguments = draw(st.lists(st.dictionaries(texts, plain, max_size=3), min_size=1, max_size=3))
        calls = [
            ToolCall(draw(st.sampled_from(["search", "é </tool_call>"])), given, id=f"call_{number}_{step}_{index}")
            for index, given in enumerate(arguments)
        ]
        results = [ToolResult(True, draw(texts), id=call.id, name=call.name) for call in calls]
        messages += [
            AgentMessage(
                content=draw(st.just("") | words),
                sender="assistant",
                tool_calls=calls,
                reasoning=draw(st.none() | words),
                usage=draw(st.none() | usages),
                tokens=draw(st.none() | spans()),
            ),
            AgentMessage(
                content="\n".join(result.text for result in results), sender="tool", tool_results=results
            ),
        ]  # fmt: skip
    answer = AgentMessage(
        content=draw(st.just("") | words),
        sender="assistant",
        reasoning=draw(st.none() | words),
        finish_reason="stop",
        tokens=draw(st.none() | spans()),
    )
    return [*messages, answer]


@st.composite
def records(draw: st.DrawFn) -> ConversationRecord:
    messages = [AgentMessage(content=text, sender="system") for text in draw(st.lists(words, max_size=1))]
    for number in range(draw(st.integers(0, 3))):
        messages += draw(turns(number))
    return ConversationRecord(
        id=draw(texts),
        model=draw(texts),
        messages=messages,
        tools=draw(st.sampled_from([[], TOOLS])),
        started_at=draw(st.floats(0, 2e9)),
        ended_at=draw(st.floats(1, 2e9)),
        completed=draw(st.booleans()),
        finish_reason=draw(st.none() | st.sampled_from(["stop", "max_turns", "odd"])),
        usage=draw(usages),
        metadata=draw(st.dictionaries(texts, plain, max_size=3)),
        agent="assistant",
    )
