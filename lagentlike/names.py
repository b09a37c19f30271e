"""Names that the units of this package keep for themselves, and that a subclass must not take by accident."""

from __future__ import annotations

import inspect
from typing import Any

from .errors import InvalidArgument

__all__ = ["KINDS", "check_attribute", "check_names"]


def check_names(cls: type) -> None:
    """Refuse a class that hides a private name of its bases, when the class is defined.

    Raises:
        InvalidArgument: it does; the message names the class that has it already.
    """
    if _is_ours(cls):
        return
    for name in {**cls.__dict__, **inspect.get_annotations(cls)}:
        if _is_private(name):
            for base in cls.__mro__[1:]:
                if _is_ours(base) and (name in base.__dict__ or name in inspect.get_annotations(base)):
                    raise _taken(cls, name, cls.__dict__.get(name), base)


KINDS = {"name": str, "training": bool, "calls": int}
"""What the attributes are that every unit has; a turn counts on them."""


def check_attribute(unit: Any, name: str, value: Any) -> None:
    """Refuse an attribute that hides a private method, or what a unit is made of.

    Raises:
        InvalidArgument: it does; the message names the class that has it already, or what the attribute must be.
    """
    kind = KINDS.get(name)
    if kind is not None and not isinstance(value, kind):
        cure = f"each unit has an attribute of this name, of type {kind.__name__}: choose another one for what is yours"
        raise InvalidArgument(f"{type(unit).__name__}.{name}", value, cure)
    if _is_private(name):
        for base in type(unit).__mro__:
            if _is_ours(base) and (inspect.isroutine(base.__dict__.get(name)) or name in _PARTS):
                raise _taken(type(unit), name, value, base)


_PARTS = frozenset({"_children", "_states", "_hooks"})


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def _taken(cls: type, name: str, value: Any, base: type) -> InvalidArgument:
    cure = (
        f"{base.__name__} keeps this name for itself: choose another one, such as {name.lstrip('_')!r} or '_my{name}'"
    )
    return InvalidArgument(f"{cls.__name__}.{name}", value, cure)
