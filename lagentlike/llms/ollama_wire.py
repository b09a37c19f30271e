"""The format of Ollama's `/api/chat`: messages and parameters in, bytes into answers, without any I/O.

See https://docs.ollama.com/api/chat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InvalidArgument
from ..prompts.parsers.room import Room
from ..schema import Completion, TokenSpan, ToolCall, Usage
from .base import Part
from .codec import arguments_object, decode
from .growing import cut_off, GrowingAnswer
from .ndjson import LineParser
from .openai_wire import logprobs_of, made_call, MessageEncoder, schema_of_answer
from .prompting import wanted_tool
from .refusals import refusal_in_stream
from .token_wire import sampling_fields
from .told import count, text_or_none, unreadable

__all__ = ["ChatLines", "OllamaEncoder", "chat_options", "parse_chat"]


class OllamaEncoder(MessageEncoder):
    """Encodes one message: its images apart from its text, and arguments of calls as objects."""

    def __init__(self, meta_template: Iterable[Mapping[str, Any]] | None = None) -> None:
        super().__init__(meta_template)
        self.dialect = self.dialect.replace("openai", "ollama", 1)

    def plain(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The message as the API has it; see `MessageEncoder`."""
        given = super().plain(message)
        role = given["role"]
        sent: dict[str, Any] = {"role": _ROLES.get(role, role), **_content(given.get("content"))}
        if given.get("reasoning_content"):
            sent["thinking"] = given["reasoning_content"]
        if given.get("tool_calls"):
            sent["tool_calls"] = [_sent_call(call) for call in given["tool_calls"]]
        if role == "tool":
            told = {"tool_name": given.get("name"), "tool_call_id": given.get("tool_call_id")}
            sent.update({name: value for name, value in told.items() if value})
        return sent


_ROLES = {"developer": "system", "function": "tool"}


def _content(content: Any) -> dict[str, Any]:
    if content is None or isinstance(content, str):
        return {"content": content or ""}
    texts, images = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str) or kind == "text":
            texts.append(part if isinstance(part, str) else str(part.get("text")))
        elif kind == "image_url":
            images.append(_image(part))
        else:
            raise InvalidArgument("content", part, "Ollama takes parts of type text and image_url")
    return {"content": "\n".join(texts), **({"images": images} if images else {})}


def _image(part: Mapping[str, Any]) -> str:
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, Mapping) else image
    head, comma, encoded = str(url).partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise InvalidArgument("content", part, "Ollama fetches no images: give a data: URL in base64")
    return encoded


def _sent_call(call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise InvalidArgument("tool_calls", call, "give {'id': …, 'type': 'function', 'function': {…}}")
    arguments = arguments_object(function.get("arguments"))
    return {"id": call.get("id"), "function": {"name": function.get("name"), "arguments": arguments}}


def chat_options(model: str, params: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
    """Everything of a request's body but the messages.

    Raises:
        InvalidArgument: a parameter has a value that cannot be sent.
    """
    body: dict[str, Any] = {"model": model, "stream": stream}
    body.update((name, params[name]) for name in _OF_REQUEST if params.get(name) is not None)
    if params.get("think") is None and params.get("reasoning_effort") is not None:
        body["think"] = params["reasoning_effort"]
    schema = schema_of_answer(params)
    if schema is not None:
        body["format"] = schema
    elif params.get("json_mode") or params.get("response_format") is not None:
        body["format"] = "json"
    if params.get("tools") and params.get("tool_choice") != "none":
        if wanted_tool(params) is not None:
            raise InvalidArgument("tool_choice", params["tool_choice"], "Ollama can require no call: use 'auto'")
        body["tools"] = list(params["tools"])
    options = _sampling(params)
    if options:
        body["options"] = options
    body.update(params.get("extra_body") or {})
    return body


def _sampling(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the model's runner; those that are not set are left to its Modelfile."""
    given = {name: value for name, value in params.items() if name not in _NOT_OPTIONS}
    options = sampling_fields(given, all_tokens=0)
    if params.get("max_new_tokens") is not None:
        options["num_predict"] = params["max_new_tokens"]
    if params.get("stop_words"):
        options["stop"] = list(params["stop_words"])
    if "repetition_penalty" in options:
        options["repeat_penalty"] = options.pop("repetition_penalty")
    return {**options, **(params.get("options") or {})}


_OF_REQUEST = ("think", "keep_alive", "logprobs", "top_logprobs", "truncate", "shift", "format")
_NOT_OPTIONS = frozenset((*_OF_REQUEST, "options", "json_mode", "response_format", "reasoning_effort"))


def parse_chat(body: bytes) -> Completion:
    """The answer in the body of a response that is not streamed.

    Raises:
        BadResponse: there is no answer in it.
        LLMError: it is an error that came with status 200.
    """
    lines = ChatLines()
    lines.feed([body])
    return lines.close()[-1][1]


class ChatLines(GrowingAnswer):
    """Builds one answer from the lines of its stream; a single line is a stream too."""

    parser = LineParser

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, Any] = {}
        self._calls: list[ToolCall] = []
        self._room = Room()
        self._logprobs: list[float] = []

    def feed(self, events: list[bytes]) -> list[Part]:
        """New text with the answer so far, for each line that brings some, `""` where only the thinking grew."""
        parts: list[Part] = []
        for event in events:
            told = decode(event)
            message = told.get("message") if type(told) is dict else None
            if type(message) is not dict:
                if type(told) is dict and told.get("error"):
                    raise refusal_in_stream(told)
                raise unreadable("has no message", event)
            self._last = told
            self._model = text_or_none(told.get("model"))
            new = self._take(message)
            if new is not None:
                parts.append((new, self._so_far()))
            self._logprobs += logprobs_of(told.get("logprobs"))
            self.done = told.get("done") is True
        return parts

    def close(self) -> list[Part]:
        """The whole answer.

        Raises:
            StreamTruncated: the stream ended before the answer did.
            BadResponse: there was no answer in it.
        """
        last = self._last
        if not self.done:
            raise cut_off(bool(last), "done is not true")
        answer = self._so_far()
        answer.tool_calls = self._calls or None
        answer.usage = Usage(1, count(last.get("prompt_eval_count")), count(last.get("eval_count")))
        answer.finish_reason = "tool_calls" if self._calls else text_or_none(last.get("done_reason")) or "stop"
        answer.tokens = TokenSpan([], self._logprobs) if self._logprobs else None
        return [("", answer)]

    def _take(self, message: dict[str, Any]) -> str | None:
        new = None
        if type(message.get("thinking")) is str and message["thinking"]:
            self._reasoning += message["thinking"]
            new = ""
        if type(message.get("content")) is str and message["content"]:
            self._text += message["content"]
            new = message["content"]
        calls = message.get("tool_calls")
        for call in calls if type(calls) is list else ():
            function = call.get("function") if type(call) is dict else None
            if type(function) is dict:
                name, arguments, id_ = function.get("name"), function.get("arguments"), call.get("id")
                given = arguments if isinstance(arguments, str | dict) else {}
                made = made_call(str(name or ""), given, id_ if type(id_) is str else "", self._room)
                self._calls.append(made)
        return new
