"""What a model is asked, in one form that is the same in every run and every colour."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ..errors import InvalidArgument
from ..schema import to_plain
from .base import Conversation, Params

__all__ = ["asked", "digest", "own_params"]


def asked(model: str, messages: Conversation, params: Params) -> dict[str, Any]:
    """What a request asks for, as plain data: `model`, `messages`, `params`. No key or header is in it.

    Parameters that are not set are left out. Ids of tool calls, which are drawn anew in each run, are numbered in the
    order in which they come.

    Raises:
        InvalidArgument: a message or a parameter has no JSON form.
    """
    ids: dict[str, str] = {}
    plain = {
        "model": model,
        "messages": [_numbered(_plain(message, f"messages[{index}]"), ids) for index, message in enumerate(messages)],
        "params": {
            name: _plain(value, name) for name, value in sorted(params.items()) if value is not None and value != []
        },
    }
    return plain


def digest(value: Any) -> str:
    """64 hexadecimal digits that plain data has, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def own_params(params: Params, index: int) -> Params:
    """What the `index`-th conversation of a batch has of its own, where it is asked by itself.

    That is a `seed`, as models that decode batches have it, and the `prompt_ids` that it goes on from.
    """
    own = {}
    if params.get("seed") is not None and index:
        own["seed"] = params["seed"] + index
    ids = params.get("prompt_ids")
    if isinstance(ids, list | tuple) and index < len(ids) and isinstance(ids[index], list | tuple):
        own["prompt_ids"] = ids[index]
    return own


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, type) and issubclass(value, BaseModel):
        return value.model_json_schema()
    try:
        return to_plain(value, where)
    except TypeError as error:
        raise InvalidArgument(where, value, str(error)) from error


def _numbered(message: Any, ids: dict[str, str]) -> Any:
    """The message with the ids of its tool calls by number."""
    if not isinstance(message, dict):
        return message
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [_with_id(call, "id", ids) for call in calls]
    return _with_id(message, "tool_call_id", ids)


def _with_id(value: Any, name: str, ids: dict[str, str]) -> Any:
    if not isinstance(value, Mapping) or not isinstance(value.get(name), str):
        return value
    return {**value, name: ids.setdefault(value[name], f"call_{len(ids) + 1}")}
