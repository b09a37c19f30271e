"""Build an object from `dict(type=..., **options)`, or pass it through."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from .errors import InvalidArgument

__all__ = ["create_object", "import_object"]


def create_object(config: Any, argument: str = "config") -> Any:
    """Build what `config` describes.

    Args:
        config: an object, which is returned as it is; or `dict(type=Class, **options)`, where `type` is a class, any
            callable, or the dotted path of one. Options are passed on as they are.
        argument: name used in error messages.

    Raises:
        InvalidArgument: `type` is neither callable nor the dotted path of something callable.

    >>> create_object(dict(type="fractions.Fraction", numerator=1, denominator=2))
    Fraction(1, 2)
    """
    if not isinstance(config, Mapping) or "type" not in config:
        return config
    options = {key: value for key, value in config.items() if key != "type"}
    kind = config["type"]
    factory = import_object(kind, f"{argument}['type']") if isinstance(kind, str) else kind
    if not callable(factory):
        raise InvalidArgument(f"{argument}['type']", kind, "give a class or its dotted path, such as 'package.Class'")
    return factory(**options)


def import_object(path: str, argument: str = "path") -> Any:
    """The object that a dotted path such as `package.module.Class` names.

    Raises:
        InvalidArgument: there is no such module or attribute.
    """
    module_path, _, name = path.rpartition(".")
    if not module_path:
        raise InvalidArgument(argument, path, "give the full dotted path, such as 'package.module.Class'")
    try:
        return getattr(importlib.import_module(module_path), name)
    except ImportError as error:
        raise InvalidArgument(argument, path, f"cannot import {module_path!r}: {error}") from error
    except AttributeError as error:
        raise InvalidArgument(argument, path, f"{module_path!r} has no {name!r}") from error
