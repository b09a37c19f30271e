"""What a tool gave back, as text that a model can be shown: bounded, and valid UTF-8."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ..errors import FetchError, ToolError
from ..schema import ActionReturn, ActionStatusCode, to_plain

__all__ = ["MAX_LENGTH", "as_return", "as_seen", "clean_text", "failed", "shortened"]

MAX_LENGTH = 32_768
"""Longest text, in characters, that a tool shows a model unless it says otherwise."""

MAX_ERRORS = 10
"""Most errors of a group that are told."""


def as_return(value: Any, name: str, arguments: dict[str, Any] | None, max_length: int = MAX_LENGTH) -> ActionReturn:
    """What a tool's function returned, as an `ActionReturn`.

    Args:
        value: an `ActionReturn`; a list of items `{"type": …, "content": …}`; a text; or anything else, which becomes
            JSON if it can, with dates, paths and the like in it as texts, and else what `str` makes of it.
        name: the tool's name, for `ActionReturn.type`.
        arguments: what it was called with.
        max_length: longer texts keep their head and their tail.
    """
    if isinstance(value, ActionReturn):
        return replace(
            value,
            args=arguments if value.args is None else value.args,
            type=name if value.type is None else value.type,
            result=None if value.result is None else [_item(item, max_length) for item in value.result],
            errmsg=None if value.errmsg is None else shortened(clean_text(str(value.errmsg)), max_length),
        )
    if isinstance(value, list) and value and all(_is_item(item) for item in value):
        items = [_item(item, max_length) for item in value]
    else:
        items = [{"type": "text", "content": _text(value, max_length)}]
    return ActionReturn(args=arguments, type=name, result=items)


def failed(
    what: BaseException | str,
    name: str,
    arguments: Any = None,
    state: ActionStatusCode | None = None,
    max_length: int = MAX_LENGTH,
) -> ActionReturn:
    """A call that did not work: the error as a text for the model; what the web is to blame for is an HTTP error."""
    args = arguments if isinstance(arguments, dict) else None
    if state is None:
        state = ActionStatusCode.HTTP_ERROR if isinstance(what, FetchError) else ActionStatusCode.API_ERROR
    return ActionReturn(args=args, type=name, errmsg=shortened(clean_text(_error_text(what)), max_length), state=state)


def as_json(value: Any) -> bytes | None:
    """The value as JSON by the fast codec; None where that does not give it back equal, as it does plain JSON data."""
    try:
        written = orjson.dumps(value)
    except TypeError:
        return None
    if written.count(b"[") > len(written) // 16:  # to make so many lists again takes longer than the other codec
        return None
    return written if orjson.loads(written) == value else None


def clean_text(text: str) -> str:
    """The text with what is no Unicode (lone surrogates) as U+FFFD, and surrogate pairs joined."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def as_seen(text: str) -> str:
    """The text as a terminal leaves it: without colours, and of a progress bar only its last state."""
    text = _ANSI.sub("", text)
    if "\r" not in text:
        return text
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


_ANSI = re.compile(r"\x1b\[[0-9;?]{0,32}[ -/]{0,4}[@-~]")


def shortened(text: str, max_length: int) -> str:
    """The text, or its head and its tail with a note between them, at most `max_length` characters in all."""
    if len(text) <= max_length:
        return text
    note = f"\n… {len(text) - max_length:,} characters are left out here …\n"
    room = max_length - len(note)
    if room < 2:
        return text[:max_length]
    return text[: room - room // 2] + note + text[-(room // 2) :]


def _is_item(value: Any) -> bool:
    return isinstance(value, Mapping) and "type" in value and "content" in value


def _item(item: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    content = item.get("content")
    return {**item, "content": _text(content, max_length) if item.get("type") == "text" else content}


def _text(value: Any, max_length: int) -> str:
    if isinstance(value, str):
        return shortened(clean_text(str.__str__(value)), max_length)
    if value is None:
        return "(no output)"
    if isinstance(value, bytes | bytearray):
        return shortened(bytes(value[: max_length * 4]).decode("utf-8", "replace"), max_length)
    return shortened(clean_text(_written(value)), max_length)


def _written(value: Any) -> str:
    """The value as JSON; what has no JSON form as `str` writes it."""
    try:
        plain = value if as_json(value) is not None else to_plain(value)
        return str(plain) if type(plain) is int else _dumps(plain)
    except RecursionError:
        return f"({type(value).__name__} that is nested too deeply to be written)"
    except TypeError:
        return _loosely_written(value)
    except Exception:  # noqa: BLE001  # a value of the tool's own may do anything
        return _str(value)


def _loosely_written(value: Any) -> str:
    """A structure as JSON, with texts in the place of what has no JSON form: dates, paths, decimals."""
    named = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if not named and not isinstance(value, list | tuple | BaseModel) and not is_dataclass(value):
        return _str(value)
    try:
        return _dumps(to_jsonable_python(value, by_alias=False, fallback=_str))
    except Exception:  # noqa: BLE001  # as above
        return _str(value)


_dumps = json.JSONEncoder(ensure_ascii=False).encode


def _str(value: Any) -> str:
    try:
        return str(value)
    except RecursionError:
        return f"({type(value).__name__} that is nested too deeply to be written)"
    except Exception as error:  # noqa: BLE001  # as above
        return f"({type(value).__name__} that cannot be written: {type(error).__name__})"


def _error_text(error: BaseException | str) -> str:
    if isinstance(error, str):
        return error
    if isinstance(error, BaseExceptionGroup):  # as those of an asyncio.TaskGroup, which says nothing of them
        return "; ".join(dict.fromkeys(_error_text(inner) for inner in error.exceptions[:MAX_ERRORS]))
    text = _str(error)
    if isinstance(error, ToolError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
