"""Models that are prompted with token ids: from a conversation to the prompt, and from text to tool calls."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ..errors import InvalidArgument
from ..prompts.parsers.tool_formats import tool_format, tool_format_for, ToolFormat
from ..schema import ToolCall
from .base import Conversation, Params

__all__ = ["CALL", "Prompt", "prompt_of", "text_and_calls", "wanted_tool"]

CALL = "<tool_call>"
"""What a call that must be made begins with."""


class Prompt(NamedTuple):
    """What a model goes on from.

    `forced` is the text that `ids` end with and the answer begins with: its tokens, `forced_tokens` of them, were not
    sampled. `form` is the format of the calls in the answer, None where no tools are on offer.
    """

    ids: list[int]
    forced: str
    form: ToolFormat | None
    forced_tokens: int = 0


class Render(Protocol):
    """Makes the ids of a conversation that its reply goes on from."""

    def __call__(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]: ...


def prompt_of(
    messages: Conversation,
    params: Params,
    index: int,
    kind: str,
    model: str,
    render: Render,
    tokenize: Callable[[str], list[int]],
    vocab_size: int | None = None,
) -> Prompt:
    """The prompt of a call's `index`-th conversation: its `prompt_ids` where they are given, else rendered.

    Args:
        messages: the conversation.
        params: of the call; `prompt_ids`, `tools`, `tool_choice` and `tool_format` are looked at.
        kind: what errors call the model.
        model: its name or path, which tells the format of its calls where `tool_format` does not.
        render: makes ids of a conversation.
        tokenize: makes ids of a text.
        vocab_size: ids are below it; None leaves that to the model.

    Raises:
        InvalidArgument: a message or one of these parameters is wrong.
    """
    tools = _tools(params)
    ids = _prompt_ids(params, index, vocab_size)
    if ids is None:
        ids = render([_readable(message, place, kind) for place, message in enumerate(messages)], tools)
    forced = _forced(params, tools)
    form = _form(params, tools, model, forced) if tools else None
    begun = tokenize(forced) if forced else []
    return Prompt(ids + begun, forced, form, len(begun))


def text_and_calls(text: str, form: ToolFormat) -> tuple[str, list[ToolCall] | None]:
    """What a model wrote, apart from its tool calls; calls that cannot be read are told to it by the executor."""
    parsed = form.parse(text)
    if not parsed.calls and not parsed.errors:
        return text, None
    calls = [*parsed.calls, *(fault.as_call() for fault in parsed.errors)]
    for call in calls:
        call.id = call.id or f"call_{uuid.uuid4().hex[:24]}"
    return parsed.content, calls


def _prompt_ids(params: Params, index: int, vocab_size: int | None) -> list[int] | None:
    """The ids that the `index`-th conversation of a call goes on from, if they are given."""
    ids = params.get("prompt_ids")
    if isinstance(ids, list | tuple) and ids and isinstance(ids[0], list | tuple):
        if index >= len(ids):
            raise InvalidArgument("prompt_ids", ids, f"there is no list of ids for conversation {index}")
        ids = ids[index]
    if ids is None:
        return None
    limit = math.inf if vocab_size is None else vocab_size
    if not isinstance(ids, list | tuple) or not ids or not all(type(id_) is int and 0 <= id_ < limit for id_ in ids):
        most = "on" if vocab_size is None else f"to {vocab_size - 1}"
        raise InvalidArgument("prompt_ids", ids, f"give a list of token ids, each from 0 {most}")
    return list(ids)


def _tools(params: Params) -> list[Mapping[str, Any]]:
    """The schemas of the tools on offer."""
    tools = params.get("tools")
    if not tools or params.get("tool_choice") == "none":
        return []
    if not isinstance(tools, list | tuple):
        raise InvalidArgument("tools", tools, "give a list of JSON schemas, such as executor.tools()")
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping) or not isinstance(tool.get("function"), Mapping):
            raise InvalidArgument(
                f"tools[{index}]", tool, "give {'type': 'function', 'function': {…}}, such as executor.tools() does"
            )
    return list(tools)


def wanted_tool(params: Mapping[str, Any]) -> str | None:
    """The name of the tool that must be called; "" for any, None where the model may choose.

    Raises:
        InvalidArgument: `tool_choice` is nothing that is known.
    """
    choice = params.get("tool_choice")
    if choice in (None, "auto", "none"):
        return None
    if choice == "required":
        return ""
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        cure = "give 'auto', 'none', 'required' or {'type': 'function', 'function': {'name': …}}"
        raise InvalidArgument("tool_choice", choice, cure)
    return name


def _form(params: Params, tools: Sequence[Mapping[str, Any]], model: str, forced: str) -> ToolFormat:
    """The format in which a model writes its calls."""
    form = tool_format_for(model.rstrip("/").rpartition("/")[2], tools, override=params.get("tool_format"))
    if not forced or form.begin == CALL:
        return form
    if params.get("tool_format") is not None:
        raise InvalidArgument(
            "tool_choice",
            params["tool_choice"],
            f"no call can be required in the format {form.tool_type!r}: use 'auto'",
        )
    return tool_format("hermes", tools)


def _forced(params: Params, tools: Sequence[Mapping[str, Any]]) -> str:
    """What the answer must begin with: a call, if `tool_choice` says so."""
    wanted = wanted_tool(params)
    if wanted is None:
        return ""
    names = [str(tool["function"].get("name")) for tool in tools]
    if not names or (wanted and wanted not in names):
        raise InvalidArgument(
            "tool_choice", params["tool_choice"], f"the tools on offer are {names}: choose one of them"
        )
    if len(names) == 1:
        wanted = names[0]
    return f'{CALL}\n{{"name": ' + (f'{json.dumps(wanted)}, "arguments":' if wanted else '"')


def _readable(message: Any, place: int, kind: str) -> Mapping[str, Any]:
    """A message in the form that the chat template takes."""
    where = f"messages[{place}]"
    if not isinstance(message, Mapping) or "role" not in message:
        raise InvalidArgument(where, message, "each message is a dict with 'role' and 'content'")
    readable: Mapping[str, Any] = message
    role = readable["role"]
    if role == "developer":
        readable = {**readable, "role": "system"}
    elif role not in ("system", "user", "assistant", "tool", "environment"):
        raise InvalidArgument(f"{where}['role']", role, "use system, user, assistant, tool or environment")
    content = readable.get("content")
    if content is None or isinstance(content, str):
        return readable
    if isinstance(content, list | tuple):
        return {**readable, "content": "".join(_part_text(part, where, kind) for part in content)}
    raise InvalidArgument(f"{where}['content']", content, "give a text, or a list of text parts")


def _part_text(part: Any, where: str, kind: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise InvalidArgument(
        f"{where}['content']", part, f"{kind} reads text only: give {{'type': 'text', 'text': …}} parts"
    )
