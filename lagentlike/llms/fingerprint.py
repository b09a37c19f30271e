"""What a model is asked, in one form that is the same in every run and every colour."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from ..errors import InvalidArgument
from ..schema import to_plain
from .base import Conversation, Params

__all__ = ["asked", "digest", "numbered", "own_params"]


def asked(model: str, messages: Conversation, params: Params, ids: dict[str, str] | None = None) -> dict[str, Any]:
    """What a request asks for, as plain data: `model`, `messages`, `params`. No key or header is in it.

    Parameters that are not set are left out. Ids of tool calls, which are drawn anew in each run, are numbered in the
    order in which they come.

    Args:
        model: the model's name.
        messages, params: of the call.
        ids: filled with the ids and what they became.

    Raises:
        InvalidArgument: a message or a parameter has no JSON form.
    """
    ids = {} if ids is None else ids
    return {
        "model": model,
        "messages": [numbered(_plain(message, f"messages[{index}]"), ids) for index, message in enumerate(messages)],
        "params": {
            name: _plain(value, name) for name, value in sorted(params.items()) if value is not None and value != []
        },
    }


def digest(value: Any) -> str:
    """64 hexadecimal digits that plain data has, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def own_params(params: Params, index: int) -> Params:
    """What the `index`-th conversation of a batch has of its own, where it is asked by itself.

    That is a `seed`, as models that decode batches have it, and the `prompt_ids` that it goes on from.
    """
    own = {}
    seed = params.get("seed")
    if isinstance(seed, int) and index:  # what is none is the model's to refuse
        own["seed"] = seed + index
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


def numbered(message: Any, ids: dict[str, str]) -> Any:
    """A message or an answer with the ids of its tool calls by number.

    Args:
        message: as plain data.
        ids: the ids so far, and what they became; new ones are added.
    """
    if not isinstance(message, dict):
        return message
    calls = message.get("tool_calls")
    found = [call.get("id") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    for id_ in (*found, message.get("tool_call_id")):
        if isinstance(id_, str) and id_:
            ids.setdefault(id_, f"call_{len(ids) + 1}")
    return _renamed(message, ids) if ids else message


_NAMES_OF_IDS = ("id", "tool_call_id", "tool_use_id")  # the last one in blocks of Claude
_OF_THE_MODEL = ("arguments", "input", "function")  # what a model gave a tool is left as it is


def _renamed(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(item, ids) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: ids.get(item, item) if name in _NAMES_OF_IDS and isinstance(item, str)
        else item if name in _OF_THE_MODEL
        else _renamed(item, ids)
        for name, item in value.items()
    }  # fmt: skip
