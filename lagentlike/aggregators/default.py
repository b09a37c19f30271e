"""Render what a session remembers as chat messages."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import InvalidArgument
from ..memory import Memory
from ..prompts import PromptTemplate, StrParser
from ..schema import ActionReturn, AgentMessage, ChatMessage, copied, to_plain

__all__ = ["DefaultAggregator"]


class DefaultAggregator:
    """Renders a session's memory as chat messages: the agent's own as `assistant`, all others as `user`.

    Consecutive user messages are merged. Tool calls become an assistant message's `tool_calls`, tool results messages
    of role `tool`. A subclass changes how one message looks by overriding `render`, or everything by overriding
    `aggregate`. If it renders the first message as a system message, that takes the place of the agent's own.
    """

    def aggregate(
        self,
        messages: Memory,
        name: str,
        parser: StrParser | None = None,
        system_instruction: Any = None,
    ) -> list[dict[str, Any]]:
        """The messages that the model is sent.

        Args:
            messages: the session's memory.
            name: the agent's name; its own messages are the assistant's.
            parser: its instruction goes with the system prompt.
            system_instruction: a text, a chat message, or a list of these.

        A message is rendered once: the next turn takes up where this one ended.
        """
        history = self._history(messages, name, parser)
        if history and history[0]["role"] == "system":
            return history
        return self._head(parser, system_instruction) + history

    def render(self, message: AgentMessage, name: str, parser: StrParser | None) -> list[dict[str, Any]]:
        """One remembered message as chat messages."""
        if message.tool_results is not None:
            return [
                {"role": "tool", "tool_call_id": result.id, "name": result.name, "content": result.text}
                for result in message.tool_results
            ]
        if not message.is_from(name):
            return [{"role": "user", "content": as_content(message.content)}]
        rendered: dict[str, Any] = {"role": "assistant", "content": as_content(message.content)}
        if message.tool_calls:
            rendered["tool_calls"] = [call.as_openai() for call in message.tool_calls]
        if message.blocks:
            rendered["blocks"] = copied(message.blocks)
        return [rendered]

    def aggregate_system_instruction(self, system_instruction: Any, name: str | None = None) -> list[dict[str, Any]]:
        """The system prompt as chat messages.

        Raises:
            InvalidArgument: it is no text, no message with `role` and `content`, and no list of these.
        """
        if isinstance(system_instruction, str | PromptTemplate):
            message = {"role": "system", "content": str(system_instruction)}
            return [{**message, "name": name} if name else message]
        if isinstance(system_instruction, Mapping):
            if not {"role", "content"} <= set(system_instruction):
                raise InvalidArgument("system_instruction", system_instruction, "a message has 'role' and 'content'")
            return [dict(system_instruction)]
        if isinstance(system_instruction, Sequence):
            return [message for item in system_instruction for message in self.aggregate_system_instruction(item)]
        raise InvalidArgument("system_instruction", system_instruction, "give a text, a message, or a list of these")

    aggregate_system_intruction = aggregate_system_instruction
    """The spelling that Lagent has."""

    def _head(self, parser: StrParser | None, system_instruction: Any) -> list[dict[str, Any]]:
        """System prompt and parser's instruction; rendered anew only when they change."""
        instruction = None if parser is None else parser.format_instruction()
        examples = self._examples()
        source = (_snapshot(system_instruction), instruction, examples)
        known: _Head | None = self.__dict__.get("_known_head")
        if known is not None and known.source == source and not known.edited():
            return list(known.messages)
        head = []
        if system_instruction:
            head += self.aggregate_system_instruction(system_instruction)
        if instruction:
            head += self.aggregate_system_instruction(instruction, parser.tool_type if parser else None)
        known = _Head([ChatMessage(message) for message in head + examples], source)
        self._known_head = known
        return list(known.messages)

    def _examples(self) -> list[dict[str, Any]]:
        """Chat messages between the system prompt and the history."""
        return []

    def _history(self, memory: Memory, name: str, parser: StrParser | None) -> list[dict[str, Any]]:
        if not isinstance(memory, Memory):
            raise InvalidArgument("messages", memory, "give a Memory, such as agent.memory.get(session_id)")
        if type(memory).get_memory is not Memory.get_memory:  # it may show anything, and something else each time
            shown = Memory()
            for message in self._shown(memory):
                shown.append(message)
            return self._merged(*self._cut([], shown.since(0), shown), name, parser)
        if memory.recent_n is not None:
            return self._merged(*self._cut([], memory.get_memory(), memory), name, parser)
        key = (id(self), name, id(parser))
        view: _View | None = memory.views.get(key)
        messages, count = ([], 0) if view is None or view.edited() else (list(view.messages), view.count)
        new = memory.since(count)
        if new:
            messages = self._merged(*self._cut(messages, new, memory), name, parser)
            view = _View(list(messages), count + len(new), self, parser)
            memory.views = {**memory.views, key: view}
        return messages

    def _shown(self, memory: Memory) -> list[AgentMessage]:
        """What a memory whose `get_memory` is its own shows."""
        return list(memory.get_memory())

    def _cut(
        self, rendered: list[dict[str, Any]], new: list[AgentMessage], memory: Memory
    ) -> tuple[list[dict[str, Any]], Sequence[AgentMessage]]:
        """What was rendered so far of a memory and what is to be rendered now, of which some may be left out."""
        return rendered, new

    def _merged(
        self,
        rendered: list[dict[str, Any]],
        new: Iterable[AgentMessage],
        name: str,
        parser: StrParser | None,
    ) -> list[dict[str, Any]]:
        """Append what `new` renders to; a user message after a user message becomes one message with it."""
        for message in new:
            for item in self.render(message, name, parser):
                last = rendered[-1] if rendered else None
                if last is not None and item["role"] == last["role"] == "user":
                    rendered[-1] = ChatMessage({**last, "content": _joined(last["content"], item["content"])})
                else:
                    rendered.append(ChatMessage(item))
        return rendered

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Rendered:
    """Rendered messages that are kept for the next turn, unless somebody edits one."""

    __slots__ = ("_edited", "_seen_edits", "messages")

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages
        self._seen_edits = ChatMessage.edits
        self._edited = False

    def edited(self) -> bool:
        if not self._edited and self._seen_edits != ChatMessage.edits:
            self._seen_edits = ChatMessage.edits
            self._edited = any(isinstance(message, ChatMessage) and message.edited for message in self.messages)
        return self._edited


class _Head(_Rendered):
    """What comes before the history, and what it was rendered from."""

    __slots__ = ("source",)

    def __init__(self, messages: list[dict[str, Any]], source: tuple[Any, ...]) -> None:
        super().__init__(messages)
        self.source = source


class _View(_Rendered):
    """The first `count` messages of a memory as one aggregator renders them; forks share it, so it never changes."""

    __slots__ = ("aggregator", "count", "parser")

    def __init__(
        self, messages: list[dict[str, Any]], count: int, aggregator: DefaultAggregator, parser: StrParser | None
    ) -> None:
        super().__init__(messages)
        self.aggregator = aggregator  # it and the parser are kept alive: their ids are the view's key
        self.parser = parser
        self.count = count


def _snapshot(system_instruction: Any) -> Any:
    """The system prompt as it is now, to see by whether it was changed since."""
    if isinstance(system_instruction, PromptTemplate):
        return str(system_instruction)
    return system_instruction if isinstance(system_instruction, str) else copy.deepcopy(system_instruction)


def _joined(first: Any, second: Any) -> Any:
    """Two user contents as one: texts are joined by a line break, content parts appended."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": str(content)}]


def as_content(content: Any) -> Any:
    """A message's content as a model is sent it: text, or a list of content parts."""
    if isinstance(content, str):
        return str.__str__(content)
    if content is None:
        return ""
    if isinstance(content, ActionReturn):
        return content.text
    if isinstance(content, list) and content and all(isinstance(part, Mapping) and "type" in part for part in content):
        return copy.deepcopy(content)
    plain = to_plain(content, "content")
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
