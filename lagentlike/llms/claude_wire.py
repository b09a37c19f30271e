"""The format of Claude's Messages API: conversations into requests, bytes into answers, without any I/O.

See https://platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import InvalidArgument
from ..prompts.parsers.room import Room
from ..schema import Completion, ToolCall, Usage
from .base import Part
from .codec import arguments_object, decode, parse_arguments
from .growing import cut_off, GrowingAnswer
from .openai_wire import made_call, schema_of_answer
from .prompting import wanted_tool
from .refusals import refusal_in_stream
from .told import count, text_or_none, unreadable

__all__ = ["PAUSED", "MessageAssembler", "as_message", "joined", "message_request", "parse_message"]

PAUSED = "pause_turn"
"""Why an answer ended that goes on when it is sent back as it is: the API's own tools took long."""

Block = dict[str, Any]


def message_request(
    model: str, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any], roles: Mapping[str, str]
) -> dict[str, Any]:
    """The body of a request.

    Args:
        model: the model's name.
        messages: in chat format, or with content parts in Claude's own.
        params: generation parameters as the package names them; None means not set.
        roles: which of the API's roles a message's role is.

    Raises:
        InvalidArgument: a message or a parameter cannot be sent.
    """
    system, turns = _turns(messages, roles)
    body: dict[str, Any] = {"model": model, "messages": turns, **_options(params)}
    if system:
        body["system"] = system
    if params.get("cache"):
        _mark_for_cache(body, params["cache"])
    body.update(params.get("extra_body") or {})
    return body


def _options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of a request but its messages."""
    for name, cure in _UNKNOWN.items():
        if params.get(name) is not None:
            raise InvalidArgument(name, params[name], cure)
    given = {name: value for name, value in params.items() if value is not None and name not in _NOT_SENT}
    for name, value in given.items():
        if type(value) is float and not math.isfinite(value):
            raise InvalidArgument(name, value, "give a finite number, or None to leave it to the server")
    options = {"max_tokens": params.get("max_new_tokens"), **given}
    if options["max_tokens"] is None:
        raise InvalidArgument("max_new_tokens", None, "Claude must be told how many tokens an answer may have")
    if params.get("stop_words"):
        options["stop_sequences"] = list(params["stop_words"])
    if params.get("tools"):
        options["tools"] = [_tool(tool) for tool in params["tools"]]
        choice = _tool_choice(params)
        if choice is not None:
            options["tool_choice"] = choice
    if params.get("thinking") is not None:
        options["thinking"] = _thinking(params["thinking"], options["max_tokens"])
    output = _output(params)
    if output:
        options["output_config"] = output
    return options


def _output(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the answer shall be like."""
    output = dict(params.get("output_config") or {})
    if params.get("reasoning_effort") is not None:
        output["effort"] = params["reasoning_effort"]
    schema = schema_of_answer(params)
    if schema is not None:
        output["format"] = {"type": "json_schema", "schema": schema}
    return output


_NOT_SENT = frozenset(
    "max_new_tokens stop_words tools tool_choice parallel_tool_calls thinking reasoning_effort response_format "
    "json_mode output_config cache extra_body messages model stream n "
    "logprobs top_logprobs return_token_ids".split()  # it has none to give: an agent in train() mode asks all models
)
_UNKNOWN = {
    "repetition_penalty": "Claude knows no such penalty: leave it out",
    "seed": "Claude's answers cannot be repeated: leave it out",
    "json_mode": "Claude answers in JSON where it is told a schema: give response_format",
}


def _thinking(wanted: Any, limit: int) -> dict[str, Any]:
    if isinstance(wanted, Mapping):
        return dict(wanted)
    if isinstance(wanted, bool):
        return {"type": "adaptive"} if wanted else {"type": "disabled"}
    if not isinstance(wanted, int):
        raise InvalidArgument("thinking", wanted, "give how many tokens it may take, True, False, or a dict")
    if wanted >= limit:
        raise InvalidArgument("max_new_tokens", limit, f"thinking counts as part of it: give more than {wanted}")
    return {"type": "enabled", "budget_tokens": wanted}


def _tool(tool: Any) -> dict[str, Any]:
    """A tool's schema in Claude's form; one that is in it already (a tool of the API's own) is taken as it is."""
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        if isinstance(tool, Mapping) and ("input_schema" in tool or "type" in tool):
            return dict(tool)
        raise InvalidArgument(
            "tools", tool, "give {'type': 'function', 'function': {…}}, such as executor.tools() does"
        )
    schema = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
    made = {name: function[name] for name in ("name", "description", "strict") if function.get(name)}
    return {**made, "input_schema": schema}


def _tool_choice(params: Mapping[str, Any]) -> dict[str, Any] | None:
    given: Any = params.get("tool_choice")
    choice: dict[str, Any] | None
    if isinstance(given, Mapping) and given.get("type") in ("auto", "any", "tool", "none"):
        choice = dict(given)
    elif given == "none":
        choice = {"type": "none"}
    else:
        name = wanted_tool(params)
        choice = None if name is None else {"type": "tool", "name": name} if name else {"type": "any"}
    if params.get("parallel_tool_calls") is False and (choice is None or choice["type"] != "none"):
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return choice


def _mark_for_cache(body: dict[str, Any], wanted: Any) -> None:
    """Mark where the prompt is to be cached: after tools and system prompt, and after the last two turns of the user.

    The first of those two finds what the last request cached, the second caches what is new.
    """
    if wanted not in (True, "5m", "1h"):
        raise InvalidArgument("cache", wanted, "give True, '5m' or '1h'")
    mark = {"type": "ephemeral", **({} if wanted is True else {"ttl": wanted})}
    places = [body["system"]] if "system" in body else [body["tools"]] if "tools" in body else []
    places += [turn["content"] for turn in body["messages"] if turn["role"] == "user"][-2:]
    for place in places:
        place[-1] = {"cache_control": mark, **place[-1]}


def _turns(messages: Sequence[Mapping[str, Any]], roles: Mapping[str, str]) -> tuple[list[Block], list[dict[str, Any]]]:
    """The system prompt, and the turns, which alternate."""
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        told = message.get("role") if isinstance(message, Mapping) else message
        if not isinstance(message, Mapping) or not isinstance(told, str) or told not in roles:
            cure = f"give one of {', '.join(roles)}, or say in meta_template how it is to be sent"
            raise InvalidArgument(f"{where}['role']", told, cure)
        role = roles[told]
        if role == "system":
            system += _spoken(_parts(message.get("content"), where))
            continue
        blocks = _results(message, where) if role == "tool" else _said(message, role, where)
        role = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise InvalidArgument("messages", list(messages), "Claude must be told something beside the system prompt")
    for turn in turns:
        if turn["role"] == "user":  # the API wants results before all else
            turn["content"].sort(key=lambda block: block.get("type") != "tool_result")
    _trim(turns[-1])
    return system, turns


def _trim(last: dict[str, Any]) -> None:
    """An answer that is begun for the model may not end with a space."""
    block = last["content"][-1]
    if last["role"] == "assistant" and block.get("type") == "text":
        last["content"][-1] = {**block, "text": block["text"].rstrip()}


def _said(message: Mapping[str, Any], role: str, where: str) -> list[Block]:
    said = _parts(message.get("content"), where)
    if role != "assistant":
        return _spoken(said)
    calls = [_use(call, where) for call in message.get("tool_calls") or ()]
    blocks = [dict(block) for block in message.get("blocks") or () if isinstance(block, Mapping) and block.get("type")]
    if not _tells(blocks, said, calls):
        blocks = [block for block in blocks if block["type"] in _THINKING] + said + calls
    return _spoken(blocks)


_THINKING = ("thinking", "redacted_thinking")


def _tells(blocks: list[Block], said: list[Block], calls: list[Block]) -> bool:
    """Whether blocks say and call the same as what a message says and calls now."""
    called = [block.get("id") for block in blocks if block["type"] == "tool_use"]
    return _texts(blocks, "text") == _texts(said, "text") and called == [call["id"] for call in calls]


def _use(call: Any, where: str) -> Block:
    """A call as the model made it."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise InvalidArgument(f"{where}['tool_calls']", call, "give {'id': …, 'type': 'function', 'function': {…}}")
    return {
        "type": "tool_use",
        "id": _id(call.get("id")),
        "name": function.get("name"),
        "input": arguments_object(function.get("arguments")),
    }


def _id(id_: Any) -> str:
    """An id that the API takes."""
    return re.sub("[^a-zA-Z0-9_-]", "_", str(id_ or "call"))


def _results(message: Mapping[str, Any], where: str) -> list[Block]:
    result: Block = {"type": "tool_result", "tool_use_id": _id(message.get("tool_call_id"))}
    content = _spoken(_parts(message.get("content"), where))
    if content:
        result["content"] = content
    if message.get("is_error"):
        result["is_error"] = True
    return [result]


def _parts(content: Any, where: str) -> list[Block]:
    """A content as blocks."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list | tuple):
        raise InvalidArgument(f"{where}['content']", content, "give a text, or a list of parts")
    return [_part(part, where) for part in content]


def _spoken(blocks: list[Block]) -> list[Block]:
    """Blocks without texts that are empty or white space alone, which the API refuses."""
    return [block for block in blocks if block["type"] != "text" or str(block.get("text")).strip()]


def _part(part: Any, where: str) -> Block:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return dict(part)
    if kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else image
        if isinstance(url, str):
            return {"type": "image", "source": _source(url)}
    elif kind == "file":
        file = part.get("file")
        found = file.get("file_data") if isinstance(file, Mapping) else None
        if isinstance(found, str):
            return {"type": "document", "source": _source(found)}
    elif isinstance(kind, str) and kind not in ("text", "input_audio"):
        return dict(part)
    cure = "give parts of type text, image_url, file, or of the API's own (image, document, …)"
    raise InvalidArgument(f"{where}['content']", part, cure)


def _source(url: str) -> dict[str, Any]:
    """Where an image or a document is: in the text of a `data:` URL, or elsewhere."""
    found = _DATA_URL.match(url)
    if found is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": found["media"], "data": url[found.end() :]}


_DATA_URL = re.compile(r"data:(?P<media>[\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,")


def parse_message(body: bytes) -> Completion:
    """The answer in the body of a response that is not streamed.

    Raises:
        BadResponse: there is no answer in it.
        LLMError: it is an error that came with status 200.
    """
    return _answer(decode(body), body)


def _answer(message: Any, raw: bytes) -> Completion:
    if type(message) is not dict or type(message.get("content")) is not list:
        if type(message) is dict and message.get("error"):
            raise refusal_in_stream(message)
        raise unreadable("has no content", raw)
    blocks = [block for block in message["content"] if type(block) is dict and type(block.get("type")) is str]
    room = Room()
    calls = [_call(block, room) for block in blocks if block["type"] == "tool_use"]
    reason = message.get("stop_reason")
    return Completion(
        _texts(blocks, "text"),
        tool_calls=calls or None,
        reasoning=_texts(blocks, "thinking") or None,
        blocks=_to_keep(blocks),
        usage=_usage(message.get("usage")),
        model=text_or_none(message.get("model")),
        finish_reason=_REASONS.get(reason, reason) if type(reason) is str else "stop",
    )


_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def _texts(blocks: Iterable[Block], kind: str) -> str:
    return "".join(block[kind] for block in blocks if block["type"] == kind and type(block.get(kind)) is str)


def _call(block: Block, room: Room) -> ToolCall:
    name, id_, given = block.get("name"), block.get("id"), block.get("input")
    arguments = given if isinstance(given, str | dict) else {}
    return made_call(name if type(name) is str else "", arguments, id_ if type(id_) is str else "", room)


def _to_keep(blocks: list[Block]) -> list[Block] | None:
    """The blocks in the form in which the API takes them back, if there is more in them than text and calls."""
    if all(map(_is_plain, blocks)):
        return None
    kept = [{name: value for name, value in block.items() if value is not None} for block in blocks]
    for block in kept:
        if block["type"] in ("tool_use", "server_tool_use", "mcp_tool_use"):
            block["input"] = arguments_object(block.get("input"))
    return kept


def _is_plain(block: Block) -> bool:
    """Whether a block is a text or a call that the model made by itself, and tells nothing beside it."""
    told = {name for name, value in block.items() if value and value != {"type": "direct"}}  # who made the call
    return told <= _PLAIN.get(block["type"], frozenset())


_PLAIN = {"text": frozenset(("type", "text")), "tool_use": frozenset(("type", "id", "name", "input"))}


def as_message(answer: Completion) -> dict[str, Any]:
    """An answer as the message that it is sent back as, to be gone on with."""
    return {"role": "assistant", "content": answer.text, "blocks": answer.blocks}


def joined(paused: Completion, rest: Completion) -> Completion:
    """An answer that was paused and what it went on with, as one."""
    answer = Completion(
        paused.text + rest.text,
        tool_calls=rest.tool_calls,
        reasoning=(paused.reasoning or "") + (rest.reasoning or "") or None,
        model=rest.model,
        finish_reason=rest.finish_reason,
    )
    if rest.finish_reason is not None:
        answer.blocks = _to_keep(_blocks(paused) + _blocks(rest))
        answer.usage = (paused.usage or Usage(1)) + (rest.usage or Usage(1))
    return answer


def _blocks(answer: Completion) -> list[Block]:
    if answer.blocks is not None:
        return answer.blocks
    calls: list[Block] = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        for call in answer.tool_calls or ()
    ]
    return [{"type": "text", "text": answer.text}, *calls]


def _usage(told: Any) -> Usage | None:
    """Claude counts what was read from the cache, or written to it, apart from the rest of the prompt."""
    if type(told) is not dict:
        return None
    fresh, written, read, made = (
        count(told.get(name))
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    )
    details = told.get("output_tokens_details")
    thought = count(details.get("thinking_tokens")) if type(details) is dict else 0
    return Usage(1, fresh + written + read, made, read, thought)


class MessageAssembler(GrowingAnswer):
    """Builds one answer from the events of its stream; events of kinds that it does not know are skipped."""

    def __init__(self) -> None:
        super().__init__()
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, Block] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}  # of what grows, by block and field
        self._whole: Completion | None = None

    def feed(self, events: list[bytes]) -> list[Part]:
        """New text with the answer so far, for each event that brings some, `""` where only the thinking grew."""
        parts: list[Part] = []
        for event in events:
            told = decode(event)
            kind = told.get("type") if type(told) is dict else None
            if kind == "content_block_delta":
                new = self._grow(told)
                if new is not None:
                    parts.append((new, self._so_far()))
            elif kind == "content_block_start":
                self._begin(told)
            elif kind == "message_start" and type(told.get("message")) is dict:
                self._message = dict(told["message"])
                self._model = text_or_none(self._message.get("model"))
            elif kind == "message_delta":
                self._end(told)
            elif kind == "message_stop":
                self.done = True
            elif kind == "error":
                raise refusal_in_stream(told)
            elif kind == "message" or (kind is None and type(told) is dict and "error" in told):  # it does not stream
                self._whole, self.done = _answer(told, event), True
                parts.append((self._whole.text, Completion(self._whole.text)))
        return parts

    def close(self) -> list[Part]:
        """The whole answer.

        Raises:
            StreamTruncated: the stream ended before it said why the answer did.
            BadResponse: there was no answer in it.
        """
        if self._whole is not None:
            return [("", self._whole)]
        if type(self._message.get("stop_reason")) is not str:
            raise cut_off(bool(self._message), "no stop_reason")
        for (index, name), pieces in self._pieces.items():
            block, grown = self._blocks[index], "".join(pieces)
            if name == "partial_json":
                block["input"] = parse_arguments(grown)
            else:
                block[name] = (text_or_none(block.get(name)) or "") + grown
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        return [("", _answer({**self._message, "content": blocks}, b""))]

    def _begin(self, event: dict[str, Any]) -> None:
        index, block = event.get("index"), event.get("content_block")
        if type(index) is int and type(block) is dict:
            self._blocks[index] = dict(block)
            self._text += (text_or_none(block.get("text")) or "") if block.get("type") == "text" else ""

    def _grow(self, event: dict[str, Any]) -> str | None:
        """Take a delta; its new text, `""` where only the thinking grew, None where there is nothing to show."""
        index, delta = event.get("index"), event.get("delta")
        if type(index) is not int or index not in self._blocks or type(delta) is not dict:
            return None
        kind = delta.get("type")
        if kind == "citations_delta":
            block = self._blocks[index]
            cited = block.get("citations")
            block["citations"] = [*(cited if type(cited) is list else ()), delta.get("citation")]
            return None
        name = _GROWS.get(kind, "") if type(kind) is str else ""
        new = text_or_none(delta.get(name))
        if new is None:
            return None
        self._pieces.setdefault((index, name), []).append(new)
        if name == "text":
            self._text += new
            return new
        if name == "thinking":
            self._reasoning += new
            return ""
        return None

    def _end(self, event: dict[str, Any]) -> None:
        delta, usage = event.get("delta"), event.get("usage")
        if type(delta) is dict:
            self._message.update(delta)
        if type(usage) is dict:
            begun = self._message.get("usage")
            told = {name: value for name, value in usage.items() if value is not None}
            self._message["usage"] = {**(begun if type(begun) is dict else {}), **told}


_GROWS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}
