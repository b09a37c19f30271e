"""What travels between agents, tools, models and people."""

from __future__ import annotations

import copy
import importlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, InitVar, is_dataclass
from enum import Enum, IntEnum
from operator import attrgetter
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator

from .errors import shown
from .token_span import TokenSpan

__all__ = [
    "ActionReturn",
    "ActionStatusCode",
    "ActionValidCode",
    "AgentMessage",
    "AgentStatusCode",
    "ChatMessage",
    "Completion",
    "FunctionCall",
    "ModelStatusCode",
    "TokenSpan",
    "ToolCall",
    "ToolResult",
    "ToolStatusCode",
    "Usage",
    "to_plain",
]


class ModelStatusCode(IntEnum):
    """How far a model's answer has come; the first item of what `stream_chat` yields."""

    END = 0
    STREAM_ING = 1
    SERVER_ERR = -1
    SESSION_CLOSED = -2
    SESSION_OUT_OF_LIMIT = -3
    SESSION_INVALID_ARG = -4
    SESSION_READY = 2


class AgentStatusCode(IntEnum):
    """How far an agent's answer has come; `AgentMessage.stream_state`."""

    END = 0
    STREAM_ING = 1
    SERVER_ERR = -1
    SESSION_CLOSED = -2
    SESSION_OUT_OF_LIMIT = -3
    SESSION_INVALID_ARG = -4
    SESSION_READY = 2
    PLUGIN_START = 3
    PLUGIN_END = 4
    PLUGIN_RETURN = 5
    CODING = 6
    CODE_END = 7
    CODE_RETURN = 8


class ActionStatusCode(IntEnum):
    """How an action ended."""

    ING = 1
    SUCCESS = 0
    HTTP_ERROR = -1000
    ARGS_ERROR = -1001
    API_ERROR = -1002


class ActionValidCode(IntEnum):
    """Whether an action may be called."""

    FINISH = 1
    OPEN = 0
    CLOSED = -1
    INVALID = -2
    ABSENT = -3


class ToolStatusCode(IntEnum):
    """What a tool parser found in a model's text."""

    NO_TOOL = 0
    VALID_TOOL = 1
    PARSING_ERROR = -1


@dataclass(slots=True)
class FunctionCall:
    """The call of one action: `parameters` by name, or the text that should have been them."""

    name: str
    parameters: dict[str, Any] | str = field(default_factory=dict)


@dataclass(slots=True)
class ActionReturn:
    """What an action gave back.

    `result` is a list of items such as `{"type": "text", "content": "4"}` or
    `{"type": "image", "content": "plots/figure_0.png"}`; `errmsg` tells what went wrong when `state` is not SUCCESS.
    """

    args: dict[str, Any] | None = None
    url: str | None = None
    type: str | None = None
    result: list[dict[str, Any]] | None = None
    errmsg: str | None = None
    state: ActionStatusCode = ActionStatusCode.SUCCESS
    thought: str | None = None
    valid: ActionValidCode = ActionValidCode.OPEN

    def format_result(self) -> str:
        """Join the items into one text: text as it is, anything else as `[type](content)`."""
        parts = (
            str(item["content"]) if item.get("type") == "text" else f"[{item.get('type')}]({item.get('content')})"
            for item in self.result or ()
        )
        return "\n".join(parts)

    @property
    def text(self) -> str:
        """What a model is shown: the result, or the error."""
        if self.state == 0:  # SUCCESS; members of an enum are slow to find
            return self.format_result()
        return self.errmsg or self.format_result() or f"the call failed ({self.state.name})"


_dumps = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder for each call


@dataclass(slots=True)
class ToolCall:
    """A tool call that a model made.

    `arguments` is a dict, or the model's own text where that is no JSON object; `raw_text` is the text the call was
    parsed from (empty for native calls); `id` (or `uniq_id`) ties the result to the call; `error` says why a call that
    could not be read whole is not made, and is its result.
    """

    name: str
    arguments: dict[str, Any] | str
    raw_text: str = ""
    id: str = ""
    error: str = ""
    uniq_id: InitVar[str] = ""

    def __post_init__(self, uniq_id: str) -> None:
        if uniq_id and not self.id:
            self.id = uniq_id

    @classmethod
    def parse_from_text(cls, text: str) -> list[ToolCall]:
        """The calls `<tool_call>{"name": …, "arguments": {…}}</tool_call>` that a model wrote, in order, with ids.

        One that cannot be read has an `error`, for the model to be told; what stands in `<think>` or is quoted is none.

        >>> [call.name for call in ToolCall.parse_from_text('<tool_call>{"name": "add", "arguments": {}}</tool_call>')]
        ['add']
        """
        parsers = importlib.import_module("lagentlike.prompts.parsers.tool_call")  # it knows calls: not the other way
        calls: list[ToolCall] = parsers.calls_in(text)
        return calls

    def as_openai(self) -> dict[str, Any]:
        """The call as an item of an assistant message's `tool_calls`, with its arguments as JSON text."""
        arguments = self.arguments
        if not isinstance(arguments, str):
            arguments = _dumps(arguments)
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


@dataclass(slots=True)
class ToolResult:
    """What a tool call gave back; `id` (or `uniq_id`) is the id of its `ToolCall`."""

    success: bool
    output: str = ""
    error: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    name: str = ""
    uniq_id: InitVar[str] = ""

    def __post_init__(self, uniq_id: str) -> None:
        if uniq_id and not self.id:
            self.id = uniq_id

    @property
    def text(self) -> str:
        """What a model is shown: the output, or the error."""
        return self.output if self.success else f"Error: {self.error}"

    def to_xml(self) -> str:
        """What a model of Atropos environments is shown; no output can end the block.

        >>> ToolResult(True, "42", id="a").to_xml()
        '<tool_response>{"success": true, "output": "42", "uniq_id": "a"}</tool_response>'
        """
        shown: dict[str, Any] = {"success": self.success, "output": self.output}
        if self.error:
            shown["error"] = self.error
        if self.id:
            shown["uniq_id"] = self.id
        written = _dumps(shown).replace("</", "<\\/")  # which is the same to a reader of JSON
        return f"<tool_response>{written}</tool_response>"


for _kind in (ToolCall, ToolResult):
    setattr(_kind, "uniq_id", property(lambda self: self.id, doc="The same as `id`."))  # noqa: B010  # not the argument


@dataclass(slots=True)
class Usage:
    """What model calls cost: requests made, and tokens in and out."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __iadd__(self, other: Usage) -> Usage:
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.cached_tokens += other.cached_tokens
        self.reasoning_tokens += other.reasoning_tokens
        return self

    def __add__(self, other: Usage) -> Usage:
        total = copy.copy(self)
        total += other
        return total


class AgentMessage(BaseModel):
    """The message that agents, executors, hooks and servers exchange.

    Args:
        content: a text, a tool's `FunctionCall` or `ActionReturn`, or anything else that JSON can hold.
        sender: name of the unit (or person) it comes from.
        formatted: what an output parser made of `content`.
        extra_info: whatever travels along.
        type: a free label.
        receiver: name of the unit it is meant for.
        stream_state: STREAM_ING for a part of an answer (`content` is the answer so far), END for the whole.
        tool_calls: tools the model asks for, in order.
        tool_results: their results, in the order of the calls.
        reasoning: the model's thinking, where it gives it apart from the answer.
        blocks: the answer in its provider's own form, where text, calls and reasoning do not say all of it (signed
            thinking, results of the provider's tools); that provider is sent it again as it is.
        usage, model, finish_reason: what the answer cost, which model gave it, why it stopped.
        tokens: token ids and log-probabilities of the answer, where the engine gives them.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, defer_build=True)

    content: Any
    sender: str = "user"
    formatted: Any = None
    extra_info: Any = None
    type: str | None = None
    receiver: str | None = None
    stream_state: AgentStatusCode = AgentStatusCode.END
    tool_calls: list[ToolCall] | None = None
    tool_results: list[ToolResult] | None = None
    reasoning: str | None = None
    blocks: list[dict[str, Any]] | None = None
    usage: Usage | None = None
    model: str | None = None
    finish_reason: str | None = None
    tokens: TokenSpan | None = None

    @field_validator("stream_state", mode="before")
    @classmethod
    def _one_code(cls, value: Any) -> Any:
        return AgentStatusCode(int(value)) if isinstance(value, ModelStatusCode) else value

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in self.__dict__.items():
            if name in ("content", "sender") or not (value is None or value is AgentStatusCode.END):
                yield name, value

    def clone(self) -> AgentMessage:
        """A copy whose fields, and the lists and dicts in them, can be edited without touching this message."""
        twin = self.twin()
        state = twin.__dict__
        for name in _CONTAINER_FIELDS:
            value = state[name]
            if value is not None and type(value) is not str:
                state[name] = copied(value)
        return twin

    def twin(self) -> AgentMessage:
        """A copy that shares the lists and dicts in its fields with this message."""
        return message_of(self.__dict__.copy()) if type(self) is AgentMessage else self.model_copy()

    def is_from(self, name: str) -> bool:
        """Whether the unit of that name made it (rather than a namesake sent it to that unit)."""
        return self.sender == name and self.receiver != name

    @property
    def text(self) -> str:
        """The content as text: what a tool gave as a model is shown it, anything else as JSON.

        Raises:
            TypeError: it has no JSON form.
        """
        content = self.content
        text = content if isinstance(content, str) else getattr(content, "text", None)
        return text if isinstance(text, str) else _dumps(to_plain(content, "content"))

    def plain(self, where: str = "") -> dict[str, Any]:
        """This message as plain JSON data: the seven fields of every message, and the others where they are set.

        Args:
            where: what errors call this message.

        Raises:
            TypeError: a value has no JSON form (a set, NaN, an object); the message names where it is.
        """
        state = self.__dict__
        fields_ = {name: state[name] for name in _BASE_FIELDS}
        fields_.update((name, state[name]) for name in _MORE_FIELDS if state[name] is not None)
        place = f"{where}." if where else ""
        return {name: value if value is None else to_plain(value, place + name) for name, value in fields_.items()}


def unchecked_message(**fields: Any) -> AgentMessage:
    """A message of fields that are known to be right, without the check."""
    return message_of(_UNSET | fields)


def message_of(state: dict[str, Any]) -> AgentMessage:
    """A message with these fields, which are all there are: what `model_copy` makes, in a third of its time."""
    message = _new(AgentMessage)
    _set_state(message, state)
    _set_fields_set(message, _ALL_FIELDS)
    _set_extra(message, None)
    _set_private(message, None)
    return message


_UNSET = {name: None if field.is_required() else field.default for name, field in AgentMessage.model_fields.items()}
_BASE_FIELDS = ("content", "sender", "formatted", "extra_info", "type", "receiver", "stream_state")
_MORE_FIELDS = tuple(name for name in AgentMessage.model_fields if name not in _BASE_FIELDS)
_CONTAINER_FIELDS = ("content", "formatted", "extra_info", "tool_calls", "tool_results", "blocks", "usage")
_ATOMS = frozenset((str, int, float, bool, type(None)))
_RECORDS = {  # our own records: what reads their fields, and those of them that hold lists and dicts
    kind: (attrgetter(*(item.name for item in fields(kind))), containers)
    for kind, containers in (
        (Usage, ()),
        (ToolCall, ("arguments",)),
        (ToolResult, ("metadata",)),
        (FunctionCall, ("parameters",)),
        (ActionReturn, ("args", "result")),
    )
}
_ALL_FIELDS = set(AgentMessage.model_fields)  # one for all copies: a copy has each of its fields set
_new = object.__new__
_set_state, _set_fields_set, _set_extra, _set_private = (  # past pydantic's own __setattr__
    BaseModel.__dict__[name].__set__
    for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)


def copied(value: Any) -> Any:
    """A copy of containers and of our own records, as deep as they go; anything else is shared."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        return {key: item if type(item) in _ATOMS else copied(item) for key, item in value.items()}
    if kind is list:
        return value[:] if _ATOMS.issuperset(map(type, value)) else [copied(item) for item in value]
    if kind is tuple:
        return tuple([copied(item) for item in value])
    if kind in _RECORDS:
        read, containers = _RECORDS[kind]
        twin = kind(*read(value))
        for name in containers:
            setattr(twin, name, copied(getattr(twin, name)))
        return twin
    if isinstance(value, BaseModel):
        return value.model_copy(deep=True)
    if isinstance(value, dict | list | set | bytearray):
        return copy.deepcopy(value)
    return value


def to_plain(value: Any, where: str = "value") -> Any:
    """`value` as data that JSON gives back equal: dicts with text keys, lists, text, finite numbers, booleans, None.

    Enums become their value, dataclasses and pydantic models dicts, tuples lists.

    Raises:
        TypeError: something in it has no such form; the message names the place, the value and the cure.
    """
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return value if value.isascii() else _plain_text(value, where)
    if kind is int or kind is float:
        return _plain_number(value, where)
    if isinstance(value, Enum):
        return to_plain(value.value, where)
    if isinstance(value, str):
        return _plain_text(str.__str__(value), where)
    if isinstance(value, Mapping):
        return {_plain_key(key, where): to_plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, AgentMessage):
        return value.plain(where)
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_plain(getattr(value, item.name), f"{where}.{item.name}") for item in fields(value)}
    if isinstance(value, BaseModel):
        return {name: to_plain(item, f"{where}.{name}") for name, item in value}
    if isinstance(value, int | float):
        return _plain_number(int(value) if isinstance(value, int) else float(value), where)
    raise TypeError(
        f"{where} is {shown(value, 80)} of type {kind.__name__}, which has no JSON form: "
        "store a text, a number, a list or a dict"
    )


_MAX_INT_BITS = 14_000
"""Python refuses to read or write the digits of longer ones (sys.set_int_max_str_digits)."""


def _plain_number(value: float, where: str) -> float:
    if isinstance(value, int):
        if value.bit_length() > _MAX_INT_BITS:
            raise TypeError(f"{where} is an integer of {value.bit_length()} bits, too long for JSON: store it as text")
    elif value != value or value in (float("inf"), float("-inf")):
        raise TypeError(f"{where} is {value!r}, which JSON cannot hold: use None or a text instead")
    return value


def _plain_key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key of {where} is {shown(key, 80)}: JSON objects have text keys, so use str(key)")
    key = str.__str__(key)
    return key if key.isascii() else _plain_text(key, f"a key of {where}")


def _plain_text(value: str, where: str) -> str:
    if re.search(_SPLIT_CHARACTER, value):
        raise TypeError(
            f"{where} is {shown(value, 80)}, with a character in two surrogate halves, which JSON would join: "
            "join them, by value.encode('utf-16', 'surrogatepass').decode('utf-16')"
        )
    return value


_SPLIT_CHARACTER = "[\ud800-\udbff][\udc00-\udfff]"  # compiled once there is text to look at that is not ASCII


class Completion(str):
    """A model's answer: its text, and beside it all else that the model gave.

    It is a `str`, so `llm.chat(messages).upper()` works; an `AgentMessage` made from it keeps the rest.
    """

    __slots__ = ("blocks", "finish_reason", "model", "reasoning", "tokens", "tool_calls", "usage")

    tool_calls: list[ToolCall] | None
    reasoning: str | None
    blocks: list[dict[str, Any]] | None
    usage: Usage | None
    model: str | None
    finish_reason: str | None
    tokens: TokenSpan | None

    def __new__(
        cls,
        text: str = "",
        *,
        tool_calls: list[ToolCall] | None = None,
        reasoning: str | None = None,
        blocks: list[dict[str, Any]] | None = None,
        usage: Usage | None = None,
        model: str | None = None,
        finish_reason: str | None = None,
        tokens: TokenSpan | None = None,
    ) -> Completion:
        self = str.__new__(cls, text)
        self.tool_calls = tool_calls
        self.reasoning = reasoning
        self.blocks = blocks
        self.usage = usage
        self.model = model
        self.finish_reason = finish_reason
        self.tokens = tokens
        return self

    @property
    def text(self) -> str:
        return str.__str__(self)

    def extras(self) -> dict[str, Any]:
        """What an `AgentMessage` takes over from this answer besides its text."""
        return {
            "tool_calls": self.tool_calls,
            "reasoning": self.reasoning,
            "blocks": self.blocks,
            "usage": self.usage,
            "model": self.model,
            "finish_reason": self.finish_reason,
            "tokens": self.tokens,
        }

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (self.text,), self.extras()


_guard = threading.Lock()  # of all messages' bytes: it is held for an instant


class ChatMessage(dict[str, Any]):
    """One message as a model is sent it (`role`, `content`, …), encoded once however often it is sent.

    Editing it forgets the encoded bytes and marks it, so that whoever keeps rendered messages renders it anew.
    """

    __slots__ = ("_dialect", "_others", "_wire", "edited")

    edits: ClassVar[int] = 0
    """How many edits there were of any message, so that one look tells that nothing changed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._dialect: str | None = None  # the first one it was sent in, and its bytes: most are only ever sent in one
        self._wire = b""
        self._others: dict[str, bytes] | None = None
        self.edited = False

    def encoded(self, dialect: str, encode: Callable[[Mapping[str, Any]], bytes]) -> bytes:
        """The bytes of this message in a server's `dialect`, made by `encode` the first time."""
        if self._dialect == dialect:
            return self._wire
        others = self._others
        if others is not None and dialect in others:
            return others[dialect]
        wire = b"%b" % encode(self)  # a copy: what encoders give may hold spare room
        with _guard:  # of two dialects at once, one is the first
            if self._dialect is None:
                self._wire = wire
                self._dialect = dialect  # last, for readers look at it first
            else:
                self._others = {**(self._others or {}), dialect: wire}
        return wire

    def _edit(self) -> None:
        self._dialect = self._others = None
        self.edited = True
        ChatMessage.edits += 1

    def __setitem__(self, key: str, value: Any) -> None:
        self._edit()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._edit()
        super().__delitem__(key)

    def update(self, *args: Any, **kwargs: Any) -> None:
        self._edit()
        super().update(*args, **kwargs)

    def pop(self, *args: Any) -> Any:
        self._edit()
        return super().pop(*args)

    def setdefault(self, key: str, default: Any = None) -> Any:
        self._edit()
        return super().setdefault(key, default)

    def clear(self) -> None:
        self._edit()
        super().clear()

    def popitem(self) -> tuple[str, Any]:
        self._edit()
        return super().popitem()

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> ChatMessage:  # type: ignore[override,misc]  # dict's own overloads return Self
        self.update(other)
        return self
