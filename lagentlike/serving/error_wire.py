"""Errors of agents as JSON, so that they come out of a client as they went into its server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidArgument, LagentlikeError, RemoteError, SessionBusy, SessionConflict, StateError
from ..records.plain_errors import error_of, fields_of, kind_of
from .openai_protocol import BadRequest, failure
from .sessions import NotKept

__all__ = ["error_from_wire", "refusal_of"]

_MOST_TEXT = 4000  # characters of a message or an attribute


def refusal_of(error: Exception) -> BadRequest:
    """The response that an error of an agent amounts to; the text of foreign errors stays on the server."""
    if isinstance(error, BadRequest):
        return error
    known = error if isinstance(error, LagentlikeError) else RemoteError(type(error).__name__)
    kind = kind_of(known)
    told = failure(known)
    status = next((status for some, status in _STATUS if isinstance(known, some)), told.status)
    message = str(known)[:_MOST_TEXT]
    details = {"kind": kind, "message": message, "fields": _fields(known)}
    return BadRequest(message, param=told.param, status=status, code=kind, details=details)


_STATUS = ((SessionBusy, 409), (SessionConflict, 409), (NotKept, 500), (StateError, 400), (InvalidArgument, 400))


def error_from_wire(error: Mapping[str, Any]) -> LagentlikeError | None:
    """The error that a response's `error` tells of; None where it is no agent's."""
    details = error.get("details")
    if not isinstance(details, Mapping):
        return None
    fields = details.get("fields")
    known = fields if isinstance(fields, Mapping) else {}
    return error_of(details.get("kind"), details.get("message"), known, RemoteError)


def _fields(error: LagentlikeError) -> dict[str, Any]:
    return {
        name: value[:_MOST_TEXT] if isinstance(value, str) else value
        for name, value in fields_of(error).items()
        if name not in _KEPT_BACK
    }


_KEPT_BACK = ("raw", "msg")  # what another server sent; a copy of the message
