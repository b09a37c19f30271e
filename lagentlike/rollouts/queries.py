"""The conversations that a rollout starts from, in every form in which they may be given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidArgument

__all__ = ["Query", "queries_of"]

_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Query:
    """A conversation to go on from, and what else is known of it, such as the right answer."""

    messages: list[dict[str, Any]]
    metadata: dict[str, Any] = field(default_factory=dict)


def queries_of(given: Any, *, answered: bool = False) -> list[Query]:
    """One conversation, or a list of them, as queries.

    Args:
        given: a conversation, or a list of conversations. A conversation is a list of chat messages, a dict
            `{"messages": […], **metadata}`, or a text, which is one user message.
        answered: whether a conversation may end with an answer.

    Raises:
        InvalidArgument: something in it is no conversation; the message says where and what one looks like.

    >>> [query] = queries_of({"messages": [{"role": "user", "content": "1 + 1?"}], "answer": "2"})
    >>> query.metadata
    {'answer': '2'}
    """
    if isinstance(given, str | Mapping) or _is_conversation(given):
        return [_query(given, "messages", answered)]
    if not isinstance(given, Sequence):
        given = list(given) if hasattr(given, "__iter__") else given
    if not isinstance(given, Sequence) or not given:
        raise InvalidArgument("messages", given, "give a conversation (a list of chat messages), or a list of them")
    return [_query(item, f"messages[{index}]", answered) for index, item in enumerate(given)]


def _is_conversation(given: Any) -> bool:
    return isinstance(given, Sequence) and bool(given) and isinstance(given[0], Mapping) and "role" in given[0]


def _query(given: Any, where: str, answered: bool) -> Query:
    metadata: dict[str, Any] = {}
    messages = given
    if isinstance(given, str):
        messages = [{"role": "user", "content": given}]
    elif isinstance(given, Mapping):
        if "messages" not in given:
            raise InvalidArgument(where, given, "a dict has 'messages' (and metadata beside them)")
        messages = given["messages"]
        metadata = {key: value for key, value in given.items() if key != "messages"}
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InvalidArgument(where, messages, "a conversation is a list of at least one chat message")
    for index, message in enumerate(messages):
        place = f"{where}[{index}]"
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
            raise InvalidArgument(place, message, f"a message is a dict whose 'role' is one of {', '.join(_ROLES)}")
        content = message.get("content")
        if not (isinstance(content, str | list) or (content is None and message["role"] == "assistant")):
            raise InvalidArgument(f"{place}['content']", content, "give a text, or a list of content parts")
    if messages[-1]["role"] == "assistant" and not answered:
        raise InvalidArgument(where, messages[-1], "the last message is for the agent to answer: it is not its own")
    return Query([dict(message) for message in messages], metadata)
