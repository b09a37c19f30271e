"""The chat-completions format: requests into bytes, bytes into answers, without any I/O."""

from __future__ import annotations

import math
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from operator import is_
from typing import Any, NamedTuple

from pydantic import BaseModel

from ..errors import InvalidArgument, LLMError, ServerError
from ..prompts.parsers.room import Room
from ..schema import ChatMessage, Completion, TokenSpan, ToolCall, Usage
from .chunk_shape import ChunkShape
from .codec import decode, encode, parse_arguments
from .growing import cut_off, GrowingAnswer
from .refusals import refusal_in_stream
from .told import are_token_ids, count, unreadable

__all__ = [
    "ChatAssembler",
    "MessageEncoder",
    "check_one_answer",
    "logprobs_of",
    "made_call",
    "parse_completion",
    "request_body",
    "request_options",
    "schema_of_answer",
    "sent_roles",
]

Part = tuple[str, Completion]


class MessageEncoder:
    """Encodes one message of a conversation for the wire.

    Args:
        meta_template: `[{"role": "environment", "api_role": "user"}, …]`: under which role the server is sent a role it
            may not know. `environment` is sent as `user` unless told otherwise.

    Attributes:
        dialect: names this way of encoding, for the cache of a `ChatMessage`.
    """

    def __init__(self, meta_template: Iterable[Mapping[str, Any]] | None = None) -> None:
        self._roles = sent_roles(meta_template, {**{role: role for role in _ROLES}, "environment": "user"})
        changed = sorted((role, sent) for role, sent in self._roles.items() if role != sent)
        self.dialect = "openai " + " ".join(f"{role}={sent}" for role, sent in changed)
        self._known: OrderedDict[int, _Prefix] = OrderedDict()  # by the id of its last message, the latest at the end

    def joined(self, messages: Sequence[Mapping[str, Any]]) -> bytes:
        """The messages as items of a JSON array; of a long conversation that goes on, only the new ones are joined."""
        if len(messages) < _LONG:
            return b",".join(self._encoded(messages))
        known = self._prefix_of(messages)
        new = messages if known is None else messages[len(known.messages) :]
        wire = b",".join(self._encoded(new) if known is None else [known.wire, *self._encoded(new)])
        if all(type(message) is ChatMessage for message in new):  # others may be edited without a trace
            self._known[id(messages[-1])] = _Prefix(list(messages), wire, ChatMessage.edits)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return wire

    def _encoded(self, messages: Sequence[Mapping[str, Any]]) -> list[bytes]:
        dialect = self.dialect
        return [
            message.encoded(dialect, self) if type(message) is ChatMessage else self(message) for message in messages
        ]

    def _prefix_of(self, messages: Sequence[Mapping[str, Any]]) -> _Prefix | None:
        """What was sent of this very conversation before."""
        for message in messages[: -_LOOK_BACK - 1 : -1]:
            known = self._known.pop(id(message), None)
            if known is None or known.edits != ChatMessage.edits or len(known.messages) > len(messages):
                continue
            if all(map(is_, known.messages, messages)):
                return known
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": OrderedDict()}

    def __call__(self, message: Mapping[str, Any]) -> bytes:
        """The message as a JSON object; raises as `plain` does."""
        return encode(self.plain(message), "message")

    def plain(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The message as the server has it.

        Raises:
            InvalidArgument: it has no role that is known, or its content is neither text nor a list of parts.
        """
        if not isinstance(message, (dict, Mapping)):
            raise InvalidArgument("message", message, "each message is a dict with 'role' and 'content'")
        sent = dict(message)
        role = sent.get("role")
        if not isinstance(role, str) or role not in self._roles:
            raise InvalidArgument(
                "role", role, f"give one of {', '.join(self._roles)}, or say in meta_template how it is to be sent"
            )
        sent["role"] = self._roles[role]
        content = sent.get("content")
        if content is None:
            if not sent.get("tool_calls"):
                raise InvalidArgument("message", dict(message), "a message without tool_calls needs a content")
        elif not isinstance(content, str | list):
            raise InvalidArgument("content", content, "give a text, or a list of parts such as {'type': 'text', …}")
        if "name" in sent:
            self._name(sent)
        sent.pop("blocks", None)  # another provider's own form
        return sent

    @staticmethod
    def _name(sent: dict[str, Any]) -> None:
        """Make the name one that servers take, or leave it out."""
        name = sent["name"]
        if not isinstance(name, str) or not _VALID_NAME.fullmatch(name):
            name = _INVALID_IN_NAME.sub("_", name)[:64] if isinstance(name, str) else ""
            if name.strip("_"):
                sent["name"] = name
            else:
                del sent["name"]


_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))
_VALID_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_INVALID_IN_NAME = re.compile(r"[^a-zA-Z0-9_-]")


def sent_roles(meta_template: Iterable[Mapping[str, Any]] | None, roles: Mapping[str, str]) -> dict[str, str]:
    """Which of a server's roles each role is sent as: `roles`, and what a meta template says besides.

    Raises:
        InvalidArgument: an item of the template is none, or names a role that the server does not know.
    """
    sent, known = dict(roles), sorted(set(roles.values()))
    for item in meta_template or ():
        role, api_role = item.get("role"), item.get("api_role")
        if not isinstance(role, str):
            raise InvalidArgument("meta_template", item, "each item is a dict with a 'role'")
        if api_role is not None and api_role not in known:
            raise InvalidArgument("api_role", api_role, f"give one of {', '.join(known)}")
        sent[role] = api_role or sent.get(role, "user")
    return sent


class _Prefix(NamedTuple):
    """The beginning of a conversation, and its bytes."""

    messages: list[Mapping[str, Any]]
    wire: bytes
    edits: int


_LONG = 24  # messages, from which on joining them anew costs more than knowing what they were joined to
_LOOK_BACK = 16  # how many messages a turn may add and still find what was sent before
_MOST_KNOWN = 256


def request_body(messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any], encoder: MessageEncoder) -> bytes:
    """The body of a request: the messages' bytes, each encoded once in its life, joined with the encoded options."""
    return b"".join((b'{"messages":[', encoder.joined(messages), b"],", encode(options, "parameters")[1:]))


def request_options(model: str, params: Mapping[str, Any], limit_field: str, *, stream: bool) -> dict[str, Any]:
    """Everything of a request's body but the messages.

    Args:
        model: the model's name.
        params: generation parameters as the package names them; None means not set.
        limit_field: what the server calls `max_new_tokens`.
        stream: whether the answer shall be streamed.

    Raises:
        InvalidArgument: a parameter has a value that cannot be sent.
    """
    given = {name: value for name, value in params.items() if value is not None and name not in _NOT_SENT}
    for name, value in given.items():
        if type(value) is float and not math.isfinite(value):
            raise InvalidArgument(name, value, "give a finite number, or None to leave it to the server")
    options = {"model": model, **given}
    limit = params.get("max_new_tokens")
    if limit is not None and "max_tokens" not in options and "max_completion_tokens" not in options:
        options[limit_field] = limit
    if params.get("stop_words") and "stop" not in options:
        options["stop"] = list(params["stop_words"])
    if not options.get("tools"):
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            options.pop(name, None)
    response_format = _response_format(params)
    if response_format is not None:
        options["response_format"] = response_format
    if stream:
        options["stream"] = True
        if "stream_options" not in params:
            options["stream_options"] = _WITH_USAGE
    extra = params.get("extra_body")
    if extra:
        options.update(extra)
    return options


_NOT_SENT = frozenset(
    ("max_new_tokens", "stop_words", "json_mode", "response_format", "extra_body", "messages", "stream")
)
_WITH_USAGE = {"include_usage": True}


def _response_format(params: Mapping[str, Any]) -> dict[str, Any] | None:
    wanted = params.get("response_format")
    if wanted is None:
        return {"type": "json_object"} if params.get("json_mode") else None
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        schema = {"name": wanted.__name__, "schema": _strict(wanted.model_json_schema()), "strict": True}
        return {"type": "json_schema", "json_schema": schema}
    if not isinstance(wanted, Mapping):
        raise InvalidArgument("response_format", wanted, "give a pydantic model class or a JSON schema as a dict")
    if wanted.get("type") in ("json_object", "json_schema", "text", "structural_tag"):
        return dict(wanted)
    return {"type": "json_schema", "json_schema": {"name": wanted.get("title", "answer"), "schema": dict(wanted)}}


def schema_of_answer(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON schema that an answer must fit, by `response_format`; None where any answer will do."""
    wanted = _response_format({"response_format": params.get("response_format")})
    described = {} if wanted is None else wanted.get("json_schema", {})
    schema = described.get("schema", wanted.get("schema") if wanted is not None else None)
    return dict(schema) if isinstance(schema, Mapping) else None


def _strict(schema: Any) -> Any:
    """The schema in the form that strict servers ask for: closed objects that require all their properties.

    See https://platform.openai.com/docs/guides/structured-outputs#supported-schemas.
    """
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _strict(item) for name, item in schema.items() if name != "default"}
    properties = closed.get("properties")
    if isinstance(properties, dict):
        closed["properties"] = {name: _strict(item) for name, item in schema["properties"].items()}
        closed["additionalProperties"] = False
        closed["required"] = list(properties)
    return closed


def check_one_answer(params: Mapping[str, Any]) -> None:
    """Refuse to ask for several answers to one conversation."""
    if params.get("n") not in (None, 1):
        raise InvalidArgument("n", params["n"], "one answer a conversation is read: use llm.chat([messages] * n)")


def parse_completion(body: bytes) -> Completion:
    """The answer in the body of a response that is not streamed.

    Raises:
        BadResponse: there is no answer in it.
        LLMError: it is an error that came with status 200.
    """
    response = decode(body)
    choice = _first_choice(response, body)
    if choice is None:
        if response.get("error"):
            raise refusal_in_stream(response)
        raise unreadable("has no choices", body)
    message = choice.get("message")
    if type(message) is not dict:
        raise unreadable("has a choice without a message", body)
    text = _text(message.get("content"))
    reasoning = _reasoning(message)
    calls = _tool_calls(message)
    if text is None:
        text = _text(message.get("refusal"))
        if text is None and calls is None and reasoning is None:
            raise unreadable("has a message without content", body)
    finish = choice.get("finish_reason")
    answer = Completion(
        text or "",
        tool_calls=calls,
        reasoning=reasoning,
        usage=_usage(response.get("usage")),
        model=_text(response.get("model")),
        finish_reason=finish if type(finish) is str and finish else "tool_calls" if calls else "stop",
        tokens=_Tokens().of(response, choice) if _tells_tokens(choice) else None,
    )
    _refuse_given_up(answer)
    return answer


class ChatAssembler(GrowingAnswer):
    """Builds one answer from the chunks of its stream.

    Tool calls are put together by their index (a chunk without one goes on with the last call); a text chunk sent twice
    is passed on twice, as chunks carry nothing to tell them apart by.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[_GrowingCall] = []
        self._by_index: dict[int, _GrowingCall] = {}
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._tokens = _Tokens()
        self._chunks = 0
        self._shape = ChunkShape()
        self._whole: Completion | None = None

    def feed(self, events: list[bytes]) -> list[Part]:
        """New text with the answer so far, for each chunk that brings some."""
        parts: list[Part] = []
        for event in events:
            text = self._shape.text_of(event)
            if text:
                self._text += text
                parts.append((text, self._so_far()))
                continue
            self.done = event == b"[DONE]"
            if not self.done:
                parts += self._read(event)
            if self.done:
                break
        return parts

    def close(self) -> list[Part]:
        """The whole answer.

        Raises:
            StreamTruncated: the stream ended before it said why the answer did.
            BadResponse: there was no answer in it.
        """
        if self._whole is not None:
            return [("", self._whole)]
        if self._finish is None:
            raise cut_off(self._chunks > 0, "no finish_reason")
        answer = self._so_far()
        answer.tool_calls = self._assembled()
        answer.usage = self._usage
        answer.finish_reason = self._finish
        answer.tokens = self._tokens.span()
        _refuse_given_up(answer)
        return [("", answer)]

    def _read(self, event: bytes) -> list[Part]:
        """What a chunk tells, and its new text."""
        chunk = decode(event)
        choice = _first_choice(chunk, event)
        if choice is None:
            self._outside(chunk)
            return []
        parts: list[Part] = []
        first = self._chunks == 0
        if first:
            self._model = _text(chunk.get("model"))
        delta = choice.get("delta")
        if type(delta) is dict:
            self._chunks += 1
            new = self._take(delta)
            if new is not None:
                parts.append((new, self._so_far()))
                if self._shape.lessons and _tells_text_alone(chunk, choice, delta):
                    self._shape.learn(event, new)
        elif type(choice.get("message")) is dict:  # the server does not stream: the whole answer at once
            return self._take_whole(parse_completion(event))
        if first or (len(choice) > _PLAIN_CHOICE and _tells_tokens(choice)):
            self._tokens.add(chunk, choice)
        finish = choice.get("finish_reason")
        if type(finish) is str and finish:
            self._finish = finish
        if type(chunk.get("usage")) is dict:
            self._usage = _usage(chunk["usage"])
        return parts

    def _take(self, delta: dict[str, Any]) -> str | None:
        """The new text of a delta, `""` where only the reasoning grew, None where there is nothing to show."""
        new = None
        content = delta.get("content")
        if content:
            new = _text(content)
            if new is not None:
                self._text += new
                if len(delta) == 1:
                    return new
        reasoning = _reasoning(delta)
        if reasoning:
            self._reasoning += reasoning
            new = new or ""
        refused = delta.get("refusal")
        if refused and type(refused) is str:
            self._text += refused
            new = (new or "") + refused
        if delta.get("tool_calls"):
            self._take_calls(delta["tool_calls"])
        return new

    def _take_calls(self, deltas: Any) -> None:
        for delta in deltas if type(deltas) is list else ():
            if type(delta) is not dict:
                continue
            call = self._call_of(delta)
            if type(delta.get("id")) is str and not call.id:
                call.id = delta["id"]
            function = delta.get("function")
            if type(function) is not dict:
                continue
            if type(function.get("name")) is str and not call.name:
                call.name = function["name"]
            arguments = function.get("arguments")
            if type(arguments) is str:
                call.pieces.append(arguments)
            elif type(arguments) is dict:
                call.pieces = [encode(arguments, "arguments").decode()]

    def _call_of(self, delta: dict[str, Any]) -> _GrowingCall:
        """The call that a delta goes on with, or a new one."""
        index, id_ = delta.get("index"), delta.get("id")
        function = delta.get("function")
        begins = type(id_) is str and bool(id_) and type(function) is dict and bool(function.get("name"))
        call = None
        if type(index) is int:
            call = self._by_index.get(index)
        elif self._calls and not begins:
            call = self._calls[-1]
        if call is None or (begins and call.id and call.id != id_):  # some servers number every call 0
            call = _GrowingCall(index if type(index) is int else None)
            self._calls.append(call)
        if type(index) is int:
            self._by_index[index] = call
        return call

    def _assembled(self) -> list[ToolCall] | None:
        calls = self._calls
        if all(call.index is not None for call in calls):
            calls = sorted(calls, key=lambda call: call.index or 0)
        room = Room()
        return [made_call(call.name, "".join(call.pieces), call.id, room) for call in calls] or None

    def _outside(self, chunk: dict[str, Any]) -> None:
        """A chunk without a choice: usage, or an error."""
        if type(chunk.get("usage")) is dict:
            self._usage = _usage(chunk["usage"])
        error = chunk.get("error")
        if error or chunk.get("object") == "error" or (chunk.get("message") and "choices" not in chunk):
            raise refusal_in_stream(chunk)
        if type(chunk.get("prompt_token_ids")) is list:
            self._tokens.prompt_ids = _ids(chunk["prompt_token_ids"])

    def _take_whole(self, answer: Completion) -> list[Part]:
        self._whole, self.done = answer, True
        self._text, self._reasoning, self._model = answer.text, answer.reasoning or "", answer.model
        return [(answer.text, self._so_far())] if answer.text else []


class _GrowingCall:
    """A tool call whose arguments come in pieces."""

    __slots__ = ("id", "index", "name", "pieces")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = self.name = ""
        self.pieces: list[str] = []


_PLAIN_CHOICE = 3  # index, delta, finish_reason: nothing about tokens


class _Tokens:
    """The sampled tokens that a response tells of, under the names that servers have for them.

    vLLM: `token_ids` and `prompt_token_ids`, or `token_id:7` for a token's text; LMDeploy: `output_ids` and
    `output_token_logprobs`; llama.cpp: an `id` with each log-probability; all: `logprobs.content`.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.prompt_ids: list[int] | None = None

    def of(self, response: dict[str, Any], choice: dict[str, Any]) -> TokenSpan | None:
        self.add(response, choice)
        return self.span()

    def add(self, response: dict[str, Any], choice: dict[str, Any]) -> None:
        for holder in (response, choice):
            if type(holder.get("prompt_token_ids")) is list:
                self.prompt_ids = _ids(holder["prompt_token_ids"])
        ids = _ids(choice.get("token_ids") or choice.get("output_ids"))
        pairs = choice.get("output_token_logprobs")
        if type(pairs) is list:
            pairs = [pair for pair in pairs if type(pair) is list and len(pair) >= 2]
            self.logprobs += [float(pair[0]) for pair in pairs if isinstance(pair[0], int | float)]
            ids = ids or _ids([pair[1] for pair in pairs])
        logprobs = choice.get("logprobs")
        content = logprobs.get("content") if type(logprobs) is dict else None
        if type(content) is list:
            items = [item for item in content if type(item) is dict]
            if type(pairs) is not list:
                self.logprobs += logprobs_of(items)
            ids = ids or _ids([item.get("id", _id_in_text(item.get("token"))) for item in items])
        self.ids += ids

    def span(self) -> TokenSpan | None:
        if not self.ids and not self.logprobs:
            return None
        fits = not self.ids or len(self.ids) == len(self.logprobs)
        return TokenSpan(self.ids, self.logprobs if self.logprobs and fits else None, self.prompt_ids)


def _tells_text_alone(chunk: dict[str, Any], choice: dict[str, Any], delta: dict[str, Any]) -> bool:
    """Whether there is nothing in a chunk but text that an answer takes over."""
    if choice.get("finish_reason") or chunk.get("usage") or _tells_tokens(choice):
        return False
    return not any(value for name, value in delta.items() if name not in ("role", "content"))


def _tells_tokens(choice: dict[str, Any]) -> bool:
    if choice.get("logprobs"):
        return True
    return "token_ids" in choice or "output_ids" in choice or "output_token_logprobs" in choice


def _id_in_text(token: Any) -> int | None:
    if type(token) is str and token.startswith("token_id:") and token[9:].isdigit() and len(token) < 25:
        return int(token[9:])
    return None


def _ids(values: Any) -> list[int]:
    """The values if all are token ids, else nothing."""
    return values if are_token_ids(values) else []


def _first_choice(response: Any, raw: bytes) -> dict[str, Any] | None:
    if type(response) is not dict:
        raise unreadable("is no JSON object", raw)
    choices = response.get("choices")
    if type(choices) is list and choices:
        first = choices[0]
        if type(first) is dict:
            return first
    return None


def _text(content: Any) -> str | None:
    """The text of a content, which may be a list of parts; None where there is none."""
    if type(content) is str:
        return content
    if type(content) is list:
        texts = [part["text"] for part in content if type(part) is dict and type(part.get("text")) is str]
        return "".join(texts)
    return None


def _reasoning(message: dict[str, Any]) -> str | None:
    thought = message.get("reasoning_content") or message.get("reasoning")
    if type(thought) is str and thought:
        return thought
    details = message.get("reasoning_details")  # OpenRouter's; some are encrypted, and have no text
    if type(details) is not list:
        return None
    texts = (item.get("text") or item.get("summary") for item in details if type(item) is dict)
    return "".join(text for text in texts if type(text) is str) or None


def _tool_calls(message: dict[str, Any]) -> list[ToolCall] | None:
    calls = message.get("tool_calls")
    if type(calls) is not list or not calls:
        legacy = message.get("function_call")
        calls = [{"function": legacy}] if type(legacy) is dict else []
    room = Room()
    made = [_tool_call(call, room) for call in calls if type(call) is dict]
    return made or None


def _tool_call(call: dict[str, Any], room: Room) -> ToolCall:
    function = call.get("function")
    if type(function) is not dict:
        function = {}
    name, arguments, id_ = function.get("name"), function.get("arguments"), call.get("id")
    if type(arguments) is not str and type(arguments) is not dict:
        arguments = {}
    return made_call(name if type(name) is str else "", arguments, id_ if type(id_) is str else "", room)


def made_call(name: str, arguments: dict[str, Any] | str, id_: str, room: Room) -> ToolCall:
    """A call whose arguments are read if there is room for them."""
    error = ""
    if type(arguments) is str:
        if room.takes(arguments):
            arguments = parse_arguments(arguments)
        else:
            error = Room.FULL
    return ToolCall(name, arguments, id=id_ or _new_id(), error=error)


def _new_id() -> str:
    return f"call_{os.urandom(8).hex()}"


def _usage(usage: Any) -> Usage | None:
    if type(usage) is not dict:
        return None
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    cached = prompt.get("cached_tokens") if type(prompt) is dict else usage.get("prompt_cache_hit_tokens")
    reasoning = completion.get("reasoning_tokens") if type(completion) is dict else usage.get("reasoning_tokens")
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens"), cached, reasoning
    return Usage(1, *map(count, counts))


def logprobs_of(steps: Any) -> list[float]:
    """The log-probabilities of the sampled tokens, as far as steps are told and tell one."""
    told = [step.get("logprob") for step in steps if type(step) is dict] if type(steps) is list else []
    return [float(one) for one in told if type(one) is float or type(one) is int]


def _refuse_given_up(answer: Completion) -> None:
    """Raise where the engine says that it gave the answer up."""
    if answer.finish_reason in ("error", "abort"):
        failure: LLMError = ServerError(
            f"the server gave the answer up (finish_reason {answer.finish_reason!r})", partial=answer.text
        )
        raise failure
