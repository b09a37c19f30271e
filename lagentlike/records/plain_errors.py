"""Errors of this package as plain data, and errors made of it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import errors
from ..errors import LagentlikeError, LLMError

__all__ = ["error_of", "fields_of", "kind_of"]

_KINDS: dict[str, type[LagentlikeError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, LagentlikeError)
}


def kind_of(error: LagentlikeError) -> str:
    """The name of an error's class, or of the nearest one above it that is of this package."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _KINDS)


def fields_of(error: LagentlikeError) -> dict[str, Any]:
    """The attributes of an error that JSON can hold."""
    return {
        name: value
        for name, value in vars(error).items()
        if not name.startswith("_") and isinstance(value, str | int | float | bool | None)
    }


def error_of(kind: Any, message: Any, fields: Mapping[str, Any], default: type[LagentlikeError]) -> LagentlikeError:
    """The error that has this kind, message and these attributes.

    Args:
        kind: as `kind_of` gives it.
        default: the class where there is none of that name.
    """
    class_ = _KINDS.get(kind, default) if isinstance(kind, str) else default
    # Past __init__, whose arguments each kind has of its own; models' errors can do with the message.
    made = class_(str(message)) if issubclass(class_, LLMError) else class_.__new__(class_, str(message))
    made.__dict__.update({str(name): value for name, value in fields.items()})
    return made
