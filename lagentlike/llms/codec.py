"""JSON bytes in and out, with the cases that the fast codec refuses or rounds handled."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import orjson

from ..errors import InvalidArgument
from ..schema import to_plain
from .told import unreadable

__all__ = ["arguments_object", "decode", "encode", "mended", "parse_arguments"]


def encode(value: Any, where: str) -> bytes:
    """`value` as JSON bytes; `where` names it in errors.

    Integers of any size are kept; lone surrogates, which no UTF-8 can hold, become U+FFFD.

    Raises:
        InvalidArgument: it has no JSON form, or is nested too deeply.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return _encode_slowly(value, where)


def _encode_slowly(value: Any, where: str) -> bytes:
    try:
        return json.dumps(to_plain(_mended(value), where), ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        cure = "it is nested too deeply to be sent: flatten it, or send it as text"
    except (TypeError, ValueError) as error:
        cure = str(error)
    raise InvalidArgument(where, type(value), cure)


def mended(text: str) -> str:
    """`text` with lone surrogates replaced by U+FFFD (and split pairs joined)."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mended(value: Any) -> Any:
    """`value` with every text in it mended."""
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value


def decode(data: bytes) -> Any:
    """The value of JSON bytes from a server.

    Raises:
        BadResponse: they are no JSON: malformed, not UTF-8, NaN, nested too deeply, a number out of range.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        reason = str(error)
    if b"\\u" in data:  # perhaps only lone surrogates: written by servers that cut an emoji in two
        try:
            value = json.loads(data, parse_constant=_refuse)
            return orjson.loads(mended(json.dumps(value, ensure_ascii=False)))
        except (ValueError, RecursionError) as error:
            reason = f"{reason}; {error}"
    raise unreadable(f"is no JSON ({reason[:200]})", data)


def parse_arguments(text: str) -> dict[str, Any] | str:
    """A tool call's arguments: a dict, or the text as it is where that is no JSON object."""
    if not text or text.isspace():
        return {}
    try:
        # The fast codec rounds integers beyond 64 bits, and ids of that size are common.
        exact = len(text) < _FEW_DIGITS or _LONG_NUMBER.search(text) is None
        value = orjson.loads(text) if exact else json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def arguments_object(arguments: Any) -> dict[str, Any]:
    """A tool call's arguments as the object that some servers ask for, also where the model wrote none.

    >>> arguments_object('{"a": 1}'), arguments_object("{a: 1")
    ({'a': 1}, {'arguments': '{a: 1'})
    """
    read = parse_arguments(arguments) if isinstance(arguments, str) else arguments or {}
    return read if isinstance(read, dict) else {"arguments": read}


_FEW_DIGITS = 19
_LONG_NUMBER = re.compile("[0-9]{19}")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
