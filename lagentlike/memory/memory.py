"""The messages of one session, in order."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Any, overload

from pydantic import TypeAdapter, ValidationError

from ..concurrency import TurnQueue
from ..errors import InvalidArgument, StateError
from ..schema import ActionReturn, AgentMessage
from .state import plain_state

__all__ = ["Mark", "Memory", "Outermost"]

Mark = tuple[list[AgentMessage], int]
"""A point that a memory can be taken back to: its log, and how much of it."""


class Outermost:
    """A turn that runs in no other one, as the memories see it that it and the turns inside it write to."""

    is_over = False

    @cached_property
    def name(self) -> str:
        """What servers elsewhere know it by."""
        return uuid.uuid4().hex


class Memory:
    """The messages of one session, in order.

    What is added is kept as a copy and never changed afterwards: treat what `get_memory` returns as read-only, and use
    `message.clone()` for a copy to edit.

    Args:
        recent_n: how many of the last messages `get_memory` gives when it is not told; None for all of them.

    A log only ever grows at its end; whatever else changes it makes a new one. So a mark is a log and a length, going
    back to it costs nothing, and forks share the log until one of them writes.
    """

    def __init__(self, recent_n: int | None = None) -> None:
        self.recent_n = _checked_recent_n(recent_n)
        self.turns = TurnQueue()
        self.views: Mapping[Any, Any] = _NO_VIEWS
        self.before: tuple[Outermost, Mark] | None = None  # where it stood when that turn first wrote to it
        self.running: Mark | None = None  # where it stood when the turn began that is writing to it
        self._log: list[AgentMessage] = []
        self._length = 0
        self._shared = False

    def add(self, memories: AgentMessage | str | Sequence[AgentMessage | str]) -> None:
        """Append messages; a plain text becomes a user message."""
        items = memories if isinstance(memories, list | tuple) else [memories]
        for message in [_as_message(item).clone() for item in items]:
            self.append(message)

    def append(self, message: AgentMessage) -> None:
        """Append a message that nobody else will change, without copying it."""
        if self._shared or self._length != len(self._log):
            self._log = self._log[: self._length]
            self._shared = False
        if message.tokens is not None:
            earlier = next((one.tokens for one in reversed(self) if one.tokens is not None), None)
            if earlier is not None:
                message.tokens.go_on_from(earlier)  # so that the prompts of a session are kept once
        self._log.append(message)
        self._length += 1

    def get_memory(
        self, recent_n: int | None = None, filter_func: Callable[[int, AgentMessage], bool] | None = None
    ) -> list[AgentMessage]:
        """The messages, oldest first.

        Args:
            recent_n: only so many of the last ones; None for this memory's own `recent_n`.
            filter_func: called with index and message; keeps those it returns true for. It sees the messages that
                `recent_n` left, with indexes counted from the first of them.
        """
        recent_n = self.recent_n if recent_n is None else _checked_recent_n(recent_n)
        start = 0 if recent_n is None else max(0, self._length - recent_n)
        messages = self._log[start : self._length]
        if filter_func is not None:
            messages = [message for index, message in enumerate(messages) if filter_func(index, message)]
        return messages

    def since(self, count: int) -> list[AgentMessage]:
        """The messages after the first `count`."""
        return self._log[count : self._length]

    def delete(self, index: int | Sequence[int]) -> None:
        """Remove the message at an index, or at several; all indexes count in the memory as it is now.

        Raises:
            InvalidArgument: there is no message at an index; nothing is removed then.
        """
        indexes = [index] if isinstance(index, int) else list(index)
        for item in indexes:
            if isinstance(item, bool) or not isinstance(item, int) or not -self._length <= item < self._length:
                raise InvalidArgument(
                    "index", item, f"there are {self._length} messages, so give {-self._length} to {self._length - 1}"
                )
        gone = {item % self._length for item in indexes}
        self._replace([message for position, message in enumerate(self) if position not in gone])

    def load(self, memories: str | Mapping[str, Any] | AgentMessage | Sequence[Any], overwrite: bool = True) -> None:
        """Take over what `save` gave (or texts, messages, a single one of these).

        Args:
            memories: plain dicts, texts or messages.
            overwrite: replace what is there; otherwise append.

        Raises:
            StateError: an item is no message; nothing is changed then.
        """
        items = [memories] if isinstance(memories, str | Mapping | AgentMessage) else memories
        loaded = self.parse(items)
        for earlier, later in pairwise([one.tokens for one in loaded if one.tokens is not None]):
            later.go_on_from(earlier)
        self._replace(loaded if overwrite else [*self, *loaded])

    def save(self) -> list[dict[str, Any]]:
        """All messages as plain dicts that `json.dumps` writes and `load` takes.

        Raises:
            StateError: something in a message has no JSON form.
        """
        return [plain_state(message, f"message {index}") for index, message in enumerate(self)]

    def clear(self) -> None:
        """Forget everything."""
        self._replace([])

    @staticmethod
    def parse(items: Any) -> list[AgentMessage]:
        """Messages from what `save` gave, checked whole before any of it is used.

        Raises:
            StateError: it is no list of messages; the error names the item.
        """
        if not isinstance(items, list | tuple):
            raise StateError(f"expected a list of messages, got {type(items).__name__}")
        return [_parsed(index, item) for index, item in enumerate(items)]

    def fork(self, mark: Mark | None = None) -> Memory:
        """A memory that begins where this one is, at no cost: they share their past until one of them goes on.

        Args:
            mark: begin at this point of the past instead.
        """
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.turns = TurnQueue()
        twin.before = twin.running = None
        twin._log, twin._length = mark = self.mark() if mark is None else mark
        twin._shared = True
        views = self.views
        twin.views = views
        if self.views is not views or not self.stands_at(mark):  # they may show more than that, by now
            twin.views = _NO_VIEWS
        return twin

    def begin(self, outermost: Outermost) -> Mark:
        """The present point, at the beginning of a turn that runs inside another one, or is that one."""
        self.running = mark = self._log, self._length
        before = self.before
        if before is None or before[0].is_over:
            self.before = outermost, mark
        return mark

    def standing(self, reader: Outermost | None) -> Mark:
        """The point where it stands between turns: what turns that are under way did is not there yet.

        Args:
            reader: the outermost turn of who asks; for that one the turns are there that ended inside it.
        """
        before = self.before
        if before is not None and not before[0].is_over and before[0] is not reader:
            return before[1]
        return self.running or self.mark()

    def is_changing(self, reader: Outermost | None) -> bool:
        """Whether a turn is under way that wrote to it, and is not that of who asks."""
        before = self.before
        return before is not None and not before[0].is_over and before[0] is not reader

    def mark(self) -> Mark:
        """The present point, for `rewind`."""
        return self._log, self._length

    def stands_at(self, mark: Mark) -> bool:
        """Whether nothing happened since a mark."""
        log, length = mark
        return self._log is log and self._length == length

    def rewind(self, mark: Mark) -> list[AgentMessage]:
        """Go back to a mark; returns the messages given up."""
        log, length = mark
        if self._log is log:
            given_up = log[length : self._length]
        else:  # it went on in a log of its own
            kept = set(map(id, log[:length]))
            given_up = [message for message in self if id(message) not in kept]
            self._shared = True
        self._log, self._length = mark
        self.views = _NO_VIEWS
        return given_up

    def _replace(self, messages: list[AgentMessage]) -> None:
        self._log, self._length, self._shared = messages, len(messages), False
        self.views = _NO_VIEWS

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[AgentMessage]:
        return iter(self._log[: self._length])

    @overload
    def __getitem__(self, index: int) -> AgentMessage: ...
    @overload
    def __getitem__(self, index: slice) -> list[AgentMessage]: ...
    def __getitem__(self, index: int | slice) -> AgentMessage | list[AgentMessage]:
        if isinstance(index, slice):
            return list(self)[index]
        return self._log[range(self._length)[index]]

    def __repr__(self) -> str:
        window = "" if self.recent_n is None else f", recent_n={self.recent_n}"
        return f"{type(self).__name__}({self._length} messages{window})"

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.update(_log=list(self), _shared=False)
        del state["turns"], state["views"], state["before"], state["running"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, turns=TurnQueue(), views=_NO_VIEWS, before=None, running=None)


_NO_VIEWS: Mapping[Any, Any] = MappingProxyType({})


def _as_message(item: Any) -> AgentMessage:
    if isinstance(item, AgentMessage):
        return item
    if isinstance(item, str):
        return AgentMessage(content=item)
    raise InvalidArgument("memories", item, "give an AgentMessage, a text, or a list of those")


def _parsed(index: int, item: Any) -> AgentMessage:
    if isinstance(item, AgentMessage):
        return item.clone()
    if isinstance(item, str):
        return AgentMessage(content=item)
    if not isinstance(item, Mapping):
        raise StateError(f"message {index} is {type(item).__name__}: expected a dict with 'content' and 'sender'")
    unknown = [key for key in item if key not in AgentMessage.model_fields]
    if unknown:
        raise StateError(f"message {index} has unknown fields {unknown!r}: known are {list(AgentMessage.model_fields)}")
    try:
        fields = plain_state(item, f"message {index}")
        if "content" in fields:
            fields["content"] = _revived(fields["content"])
        return AgentMessage(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise StateError(f"message {index}, field {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _revived(content: Any) -> Any:
    """What a tool gave back, from its plain form: models are shown it in another way than a dict."""
    if isinstance(content, dict) and content.keys() == _ACTION_RETURN:
        with suppress(ValidationError):
            return _action_return().validate_python(content)
    return content


@cache  # built when it is needed: at import it would be most of what importing this module takes
def _action_return() -> TypeAdapter[ActionReturn]:
    return TypeAdapter(ActionReturn)


_ACTION_RETURN = ActionReturn.__dataclass_fields__.keys()


def _checked_recent_n(recent_n: int | None) -> int | None:
    if recent_n is not None and (isinstance(recent_n, bool) or not isinstance(recent_n, int) or recent_n < 0):
        raise InvalidArgument(
            "recent_n", recent_n, "give how many of the last messages to keep in view, or None for all"
        )
    return recent_n
