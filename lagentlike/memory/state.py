"""State kept by session: what `state_dict`, `fork` and `reset` work on."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

from ..errors import InvalidArgument, StateError
from ..schema import AgentMessage, to_plain

__all__ = [
    "ALL_SESSIONS",
    "SessionId",
    "SessionState",
    "SessionValue",
    "check_session_id",
    "id_from_json",
    "id_to_json",
    "plain_state",
]

SessionId = Hashable
"""An int, a text, or a tuple of those: what survives JSON and can be told apart."""

ALL_SESSIONS = "all"
"""The word that means every session; no session can have it as its id."""

T = TypeVar("T")


class SessionState(ABC):
    """Something with a value for each session; a unit that holds one as an attribute has it in its tree.

    It is to agents what parameters and buffers are to `nn.Module`. One that is not `persistent` is like such a buffer:
    `state_dict` leaves it out, and a session that is loaded begins without it. The value of one that `spreads` is the
    state of a whole tree, such as an agent's elsewhere: its keys stand in `state_dict` in the place of its own.
    """

    persistent: ClassVar[bool] = True
    spreads: ClassVar[bool] = False

    @abstractmethod
    def session_ids(self) -> list[SessionId]:
        """The sessions it has a value for."""

    def knows(self, session_id: SessionId) -> bool:
        """Whether it has a value for a session."""
        return session_id in self.session_ids()

    @abstractmethod
    def dump(self, session_id: SessionId) -> Any:
        """The session's value as plain JSON data (an empty one for a session it does not know).

        Raises:
            StateError: something in it has no JSON form.
        """

    @abstractmethod
    def parse(self, value: Any) -> Any:
        """Check what `dump` gave, changing nothing, and return what `restore` takes.

        Raises:
            StateError: it is nothing that `dump` gives.
        """

    @abstractmethod
    def restore(self, session_id: SessionId, parsed: Any) -> None:
        """Put what `parse` returned in the place of the session's value."""

    def snapshot(self, session_id: SessionId) -> Callable[[], None]:
        """A function that puts back what the session has now, for when loading a tree fails half-way.

        Raises:
            StateError: something in it has no JSON form.
        """
        parsed, known = self.parse(self.dump(session_id)), session_id in self.session_ids()
        return lambda: self.restore(session_id, parsed) if known else self.reset(session_id)

    @abstractmethod
    def fork(self, session_id: SessionId, new_session_id: SessionId) -> None:
        """Let the new session begin where the other one is; later changes of one do not reach the other."""

    @abstractmethod
    def reset(self, session_id: SessionId) -> None:
        """Forget the session."""


class SessionValue(SessionState, Generic[T]):
    """A JSON value for each session, for tools and agents with state of their own.

    Args:
        default: makes the value of a new session.

    >>> notes = SessionValue(list)
    >>> notes[0].append("buy milk")
    >>> notes[0], notes["other"]
    (['buy milk'], [])
    """

    def __init__(self, default: Callable[[], T]) -> None:
        if not callable(default):
            raise InvalidArgument("default", default, "give a function that makes the first value, such as list")
        self._default = default
        self._values: dict[SessionId, T] = {}

    def __getitem__(self, session_id: SessionId) -> T:
        if session_id not in self._values:
            self._values[check_session_id(session_id)] = self._default()
        return self._values[session_id]

    def __setitem__(self, session_id: SessionId, value: T) -> None:
        self._values[check_session_id(session_id)] = value

    def session_ids(self) -> list[SessionId]:
        return list(self._values)

    def knows(self, session_id: SessionId) -> bool:
        return session_id in self._values

    def dump(self, session_id: SessionId) -> Any:
        value = self._values[session_id] if session_id in self._values else self._default()
        return plain_state(value, f"the value of session {session_id!r}")

    def parse(self, value: Any) -> Any:
        expected = type(plain_state(self._default(), "the default"))
        plain = plain_state(value, "the value")
        if expected is not type(None) and type(plain) is not expected:
            raise StateError(f"expected a {expected.__name__}, got {type(value).__name__}")
        return copy.deepcopy(plain)

    def restore(self, session_id: SessionId, parsed: Any) -> None:
        self._values[session_id] = parsed

    def snapshot(self, session_id: SessionId) -> Callable[[], None]:
        if session_id not in self._values:
            return lambda: self.reset(session_id)
        return partial(self.restore, session_id, self._values[session_id])

    def fork(self, session_id: SessionId, new_session_id: SessionId) -> None:
        if session_id in self._values:
            self._values[new_session_id] = copy.deepcopy(self._values[session_id])

    def reset(self, session_id: SessionId) -> None:
        self._values.pop(session_id, None)


def plain_state(value: Any, where: str) -> Any:
    """`value` as plain JSON data, or a `StateError` that names the place."""
    if isinstance(value, AgentMessage) and type(value) is not AgentMessage:
        own = [name for name in type(value).model_fields if name not in AgentMessage.model_fields]
        if own:
            kind = type(value).__name__
            raise StateError(f"{where} is a {kind}, whose own fields {own} would be lost: put them into extra_info")
    try:
        return to_plain(value, where)
    except TypeError as error:
        raise StateError(str(error)) from error
    except RecursionError:
        raise StateError(
            f"{where} is nested too deeply to be written: flatten it, or leave it out of the state"
        ) from None


def check_session_id(session_id: Any) -> SessionId:
    """The session id, if it is one.

    Raises:
        InvalidArgument: it is not an int, a text, or a tuple of those.
    """
    kind = type(session_id)
    if kind is int or (kind is str and session_id != ALL_SESSIONS):
        return session_id  # type: ignore[no-any-return]
    if kind is tuple and session_id:
        for part in session_id:
            check_session_id(part)
        return session_id  # type: ignore[no-any-return]
    if session_id == ALL_SESSIONS:
        raise InvalidArgument("session_id", session_id, "'all' means every session; choose another id")
    raise InvalidArgument("session_id", session_id, "give an int, a text, or a tuple of those")


def id_to_json(session_id: SessionId) -> Any:
    """A session id as plain data: tuples become lists."""
    return [id_to_json(part) for part in session_id] if isinstance(session_id, tuple) else session_id


def id_from_json(value: Any) -> Any:
    """What `id_to_json` gave as it was, unchecked."""
    return tuple(id_from_json(part) for part in value) if isinstance(value, list) else value
