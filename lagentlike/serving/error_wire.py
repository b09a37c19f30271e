"""Errors of agents as JSON, so that they come out of a client as they went into its server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import errors
from ..errors import InvalidArgument, LagentlikeError, LLMError, RemoteError, SessionBusy, SessionConflict, StateError
from .openai_protocol import BadRequest, failure
from .sessions import NotKept

__all__ = ["error_from_wire", "refusal_of"]

_KINDS: dict[str, type[LagentlikeError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, LagentlikeError)
}
_MOST_TEXT = 4000  # characters of a message or an attribute


def refusal_of(error: Exception) -> BadRequest:
    """The response that an error of an agent amounts to; the text of foreign errors stays on the server."""
    if isinstance(error, BadRequest):
        return error
    known = error if isinstance(error, LagentlikeError) else RemoteError(type(error).__name__)
    kind = next(kind for kind in type(known).__mro__ if kind.__name__ in _KINDS)
    told = failure(known)
    status = next((status for some, status in _STATUS if isinstance(known, some)), told.status)
    message = str(known)[:_MOST_TEXT]
    details = {"kind": kind.__name__, "message": message, "fields": _fields(known)}
    return BadRequest(message, param=told.param, status=status, code=kind.__name__, details=details)


_STATUS = ((SessionBusy, 409), (SessionConflict, 409), (NotKept, 500), (StateError, 400), (InvalidArgument, 400))


def error_from_wire(error: Mapping[str, Any]) -> LagentlikeError | None:
    """The error that a response's `error` tells of; None where it is no agent's."""
    details = error.get("details")
    if not isinstance(details, Mapping):
        return None
    kind = _KINDS.get(str(details.get("kind")), RemoteError)
    made = kind.__new__(kind, str(details.get("message")))  # past __init__, whose arguments each kind has of its own
    fields = details.get("fields")
    if issubclass(kind, LLMError):
        made.__dict__.update(partial="", status=None, raw="")
    made.__dict__.update({str(name): value for name, value in fields.items()} if isinstance(fields, Mapping) else {})
    return made


def _fields(error: LagentlikeError) -> dict[str, Any]:
    """The attributes of an error that JSON can hold."""
    return {
        name: value[:_MOST_TEXT] if isinstance(value, str) else value
        for name, value in vars(error).items()
        if name not in _KEPT_BACK and not name.startswith("_") and isinstance(value, str | int | float | bool | None)
    }


_KEPT_BACK = ("raw", "msg")  # what another server sent; a copy of the message
