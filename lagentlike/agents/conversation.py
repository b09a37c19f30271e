"""The conversation of a tool loop, as its model is sent it and as OpenAI's message dicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..aggregators import DefaultAggregator
from ..aggregators.default import as_content
from ..errors import InvalidArgument, StateError
from ..memory import Memory
from ..prompts import StrParser
from ..prompts.parsers.tool_formats import ToolFormat
from ..records.chat import from_openai as read_messages
from ..schema import AgentMessage, ChatMessage, ToolCall, ToolResult, unchecked_message
from .compression import is_mark

__all__ = ["LoopAggregator", "Transcript", "from_openai", "is_system", "results_message", "system_message"]

NO_RESULT = "this call was not made: the run ended before it"


def system_message(text: str) -> AgentMessage:
    """Instructions that hold for a session from here on."""
    return unchecked_message(content=text, sender="system", type=_SYSTEM)


def results_message(results: Sequence[ToolResult], sender: str) -> AgentMessage:
    """The results of a reply's calls as one message."""
    text = "\n".join(result.text for result in results)
    return unchecked_message(content=text, sender=sender, tool_results=list(results))


class LoopAggregator(DefaultAggregator):
    """Renders what the model in a tool loop is sent.

    A session's own instructions stand in the place of the agent's, a compressed conversation begins at its summary,
    and results never stand without their calls.

    Args:
        echo: send earlier thinking again, as `reasoning_content` and in a message's own `blocks`.
        tool_format: how calls and results are written as text; None for native ones.
    """

    def __init__(self, echo: bool = False, tool_format: ToolFormat | None = None) -> None:
        self.echo = echo
        self.tool_format = tool_format

    def render(self, message: AgentMessage, name: str, parser: StrParser | None) -> list[dict[str, Any]]:
        written = self.tool_format
        if message.tool_results is not None and written is not None:
            return [{"role": "user", "content": written.results(message.tool_results)}]
        rendered = super().render(message, name, parser)
        if message.is_from(name):
            if written is not None and rendered[0].pop("tool_calls", None):
                parsed = written.parse(rendered[0]["content"])
                if not parsed.calls and not parsed.errors:  # they came from elsewhere than the model's text
                    rendered[0]["content"] = written.write(message.tool_calls or [], rendered[0]["content"])
            if self.echo and message.reasoning:
                rendered[0]["reasoning_content"] = message.reasoning
            if not self.echo:
                rendered[0].pop("blocks", None)  # there may be thinking in them
        return rendered

    def _shown(self, memory: Memory) -> list[AgentMessage]:
        """What it shows, marks with the index that they keep from among those shown; no result without its call."""
        everything, shown = list(memory), super()._shown(memory)
        index_of = {id(message): index for index, message in enumerate(everything)}
        places: list[int] = []  # in the memory; of one that was made to be shown, right before the next one
        for message in reversed(shown):
            places.append(index_of.get(id(message), (places[-1] if places else len(everything)) - 1))
        places.reverse()
        while _begins_with_results(shown) and places[0] > 0:
            places.insert(0, places[0] - 1)
            shown.insert(0, everything[places[0]])
        for at, message in enumerate(shown):
            if is_mark(message):
                kept = sum(place < message.extra_info["keep_from"] for place in places)
                shown[at] = message.model_copy(update={"extra_info": {"keep_from": kept}})
        return shown

    def _cut(
        self, rendered: list[dict[str, Any]], new: list[AgentMessage], memory: Memory
    ) -> tuple[list[dict[str, Any]], Sequence[AgentMessage]]:
        if not rendered and new and new[0].tool_results is not None:  # their call is out of the memory's window
            everything = list(memory)
            while new[0].tool_results is not None and len(new) < len(everything):
                new = everything[-len(new) - 1 :]
        place = next((place for place in range(len(new) - 1, -1, -1) if is_mark(new[place])), None)
        if place is None:
            return rendered, new
        everything = list(memory)
        mark, start = len(everything) - len(new) + place, int(new[place].extra_info["keep_from"])
        system = [message for message in everything[:start] if is_system(message)][-1:]
        kept = [message for message in everything[start:mark] if not is_mark(message)]
        return [], [*system, new[place], *kept, *new[place + 1 :]]

    def _merged(
        self, rendered: list[dict[str, Any]], new: Iterable[AgentMessage], name: str, parser: StrParser | None
    ) -> list[dict[str, Any]]:
        new = list(new)
        instructions = [message for message in new if is_system(message)]
        if instructions:
            rendered = [item for item in rendered if item["role"] != "system"]
            rendered.insert(0, ChatMessage(role="system", content=as_content(instructions[-1].content)))
            new = [message for message in new if not is_system(message)]
        return super()._merged(rendered, new, name, parser)


def _begins_with_results(messages: Iterable[AgentMessage]) -> bool:
    first = next((message for message in messages if not is_mark(message)), None)
    return first is not None and first.tool_results is not None


class Transcript(DefaultAggregator):
    """Renders a session as message dicts in OpenAI's form, whole, whatever of it the model is still sent.

    The thinking of an assistant message is in `reasoning`; beside tool calls a message without text has the content
    None.

    Args:
        tool_format: how calls are written in the text of a reply; None for native ones.
    """

    def __init__(self, tool_format: ToolFormat | None = None) -> None:
        self.tool_format = tool_format

    def render(self, message: AgentMessage, name: str, parser: StrParser | None) -> list[dict[str, Any]]:
        if is_mark(message):
            return []
        if is_system(message):
            return [{"role": "system", "content": as_content(message.content)}]
        rendered = super().render(message, name, parser)
        if message.is_from(name):
            item = rendered[0]
            if message.tool_calls:
                if self.tool_format is not None:
                    item["content"] = self.tool_format.parse(item["content"]).content
                item["content"] = item["content"] or None
            if message.reasoning:
                item["reasoning"] = message.reasoning
        return rendered

    def _shown(self, memory: Memory) -> list[AgentMessage]:
        return list(memory)

    def _cut(
        self, rendered: list[dict[str, Any]], new: list[AgentMessage], memory: Memory
    ) -> tuple[list[dict[str, Any]], Sequence[AgentMessage]]:
        return rendered, new if rendered else memory.since(0)


def from_openai(history: Iterable[Mapping[str, Any]], name: str) -> list[AgentMessage]:
    """Message dicts in OpenAI's form as an agent remembers them.

    Every call gets a result: one that has none is answered so. Results without a call are left out.

    Args:
        history: the dicts.
        name: the agent, whose messages the assistant's are.

    Raises:
        InvalidArgument: an item is no message.
    """
    try:
        record = read_messages({"messages": history})
    except StateError as error:
        raise InvalidArgument("conversation_history", history, str(error)) from error
    messages: list[AgentMessage] = []
    calls: list[ToolCall] = []
    for message in [*record.messages, None]:
        found = {} if message is None else {result.id: result for result in message.tool_results or ()}
        if calls:
            lost = {call.id: ToolResult(False, error=NO_RESULT, id=call.id, name=call.name) for call in calls}
            messages.append(results_message([found.get(id_, none) for id_, none in lost.items()], "tools"))
            calls = []
        if message is None or message.tool_results is not None:
            continue
        if message.sender == "system":
            messages.append(system_message(str(as_content(message.content))))
        elif message.sender == "assistant":
            calls = message.tool_calls or []
            messages.append(message.model_copy(update={"sender": name}))
        else:
            messages.append(message)
    return messages


_SYSTEM = "system"


def is_system(message: AgentMessage) -> bool:
    """Whether a message is a session's own instructions."""
    return message.type == _SYSTEM and message.sender == _SYSTEM
