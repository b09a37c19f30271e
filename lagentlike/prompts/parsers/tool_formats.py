"""Text formats of tool calls by name: reading calls, telling a model of its tools, and writing calls and results."""

from __future__ import annotations

import difflib
import importlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from ...errors import InvalidArgument
from ...schema import ToolCall, ToolResult, ToolStatusCode
from .shown import Shown
from .str_parser import StrParser
from .tool_call import ParsedCalls

__all__ = ["ToolFormat", "register_tool_format", "tool_format", "tool_format_for", "tool_format_names"]

INSTRUCTION = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

{usage}"""


class ToolFormat(StrParser):
    """How one family of models writes tool calls as text; the base of all such formats.

    Args:
        tools: the tools on offer, as `ActionExecutor.tools()` gives them; formats whose values carry no type take it
            from there.
        template: the instruction shown to the model; its places are `{tools}` and `{usage}`.

    A format of your own sets `tool_type`, `usage`, `begin` and `end`, defines `parse` and `write_call` (and `results`,
    where its models read them in other marks), and is made known by `register_tool_format`. Whatever a model wrote,
    `parse` raises nothing.

    >>> format = tool_format("hermes")
    >>> format.parse('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>').calls[0].arguments
    {'a': 1}
    >>> print(format.write([ToolCall("add", {"a": 1})]))
    <tool_call>
    {"name": "add", "arguments": {"a": 1}}
    </tool_call>
    """

    usage: str = ""
    """How a call is written, in words for the model."""

    begin: str | re.Pattern[str] = ""
    """What a call begins with. A stream shows nothing from there on; and nothing at all, where this is empty."""

    end: str = ""
    """What a call ends with; empty where no mark does."""

    around: tuple[str, str] | None = None
    """The marks around all calls of a reply, where there are such."""

    unfinished: str = ""
    """Pattern of what `begin` may begin with, where that is a pattern."""

    def __init__(self, tools: Iterable[Mapping[str, Any]] = (), template: str = INSTRUCTION) -> None:
        super().__init__(template)
        self.tools = [dict(tool) for tool in tools]

    def with_tools(self, tools: Iterable[Mapping[str, Any]]) -> Self:
        """The same format for these tools."""
        return type(self)(tools, self.template)

    # Reading

    def parse(self, text: str) -> ParsedCalls:
        """The calls in a reply in their order, the text without them, and what begins as a call and is none."""
        raise NotImplementedError

    def shown(self) -> Shown:
        """What tells, of a reply that is still coming, how much of it is text."""
        return Shown(self.begin, self.end, self.around, self.unfinished)

    def parse_response(self, data: str) -> dict[str, Any]:
        """`dict(tool_type, thought, action, status, calls)`.

        `calls` are all calls, `{"name", "parameters", "id", "error"}` each, of which `error` says why one is not made;
        `action` and `status` are of the first. `tool_type` and `action` are None where there is no call.
        """
        parsed = self.parse(data)
        calls = [_as_dict(call) for call in (*parsed.calls, *(fault.as_call() for fault in parsed.errors))]
        if not calls:
            return {"tool_type": None, "thought": data, "action": None, "status": ToolStatusCode.NO_TOOL, "calls": []}
        first = calls[0]
        return {
            "tool_type": self.tool_type,
            "thought": parsed.content,
            "action": {"name": first["name"], "parameters": first["parameters"]},
            "status": ToolStatusCode.PARSING_ERROR if first["error"] else ToolStatusCode.VALID_TOOL,
            "calls": calls,
        }

    # Writing

    def instruction(self, tools: Iterable[Mapping[str, Any]] | None = None) -> str:
        """What a model is told of its tools and how to call them, for the system prompt; empty without tools."""
        listed = self.described(self.tools if tools is None else tools)
        return self.template.replace("{usage}", self.usage).replace("{tools}", listed) if listed else ""

    def format_instruction(self) -> str:
        return self.instruction()

    def described(self, tools: Iterable[Mapping[str, Any]]) -> str:
        """The tools as the model is told of them: their JSON Schemas, one a line."""
        return "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)

    def write_call(self, call: ToolCall, index: int) -> str:
        """One call, the `index`-th of its message, as the model would write it."""
        raise NotImplementedError

    def write(self, calls: Sequence[ToolCall], content: str = "") -> str:
        """A reply of some text and calls, as the model would write it."""
        written = self.joined([self.write_call(call, index) for index, call in enumerate(calls)]) if calls else ""
        return "\n".join(part for part in (content, written) if part)

    def joined(self, calls: list[str]) -> str:
        """The calls of a message as one text."""
        return "\n".join(calls)

    def results(self, results: Sequence[ToolResult]) -> str:
        """What the model is shown of the results of its calls, as one message."""
        return "\n".join(f"<tool_response>\n{result.text}\n</tool_response>" for result in results)

    def format_response(self, parsed: dict[str, Any]) -> str:
        calls = [ToolCall(call["name"], call["parameters"], id=call["id"]) for call in parsed["calls"]]
        return self.write(calls, parsed["thought"])


def json_arguments(call: ToolCall) -> str:
    """A call's arguments as JSON text."""
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)


def _as_dict(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "parameters": call.arguments, "id": call.id, "error": call.error}


Maker = Callable[..., ToolFormat]

_FORMATS: dict[str, str | Maker] = {  # name -> what makes it, or where that is
    "deepseek-v3": "deepseek.DeepSeekV3",
    "deepseek-v3.1": "deepseek.DeepSeekV31",
    "glm-4.5": "glm.GLM",
    "hermes": "hermes.Hermes",
    "kimi-k2": "kimi.KimiK2",
    "llama3": "llama.Llama3",
    "mistral": "mistral.Mistral",
    "mistral-v11": "mistral.MistralV11",
    "pythonic": "pythonic.Pythonic",
    "qwen3-coder": "qwen.Qwen3Coder",
}
_ALIASES = {  # what other projects call them
    "chatml": "hermes",
    "qwen": "hermes",
    "qwen25": "hermes",
    "qwen2.5": "hermes",
    "qwen3": "hermes",
    "qwen3-xml": "qwen3-coder",
    "llama3-json": "llama3",
    "llama4-json": "llama3",
    "llama4-pythonic": "pythonic",
    "deepseek-r1": "deepseek-v3",
    "deepseekv3": "deepseek-v3",
    "deepseek-v31": "deepseek-v3.1",
    "deepseekv31": "deepseek-v3.1",
    "glm45": "glm-4.5",
    "glm": "glm-4.5",
    "kimi": "kimi-k2",
}
_MODELS = [  # what a model is called -> its format; the first that fits
    ("hermes", "hermes"),
    ("qwen3-coder", "qwen3-coder"),
    ("qwen3.5", "qwen3-coder"),
    ("deepseek-v3.1", "deepseek-v3.1"),
    ("deepseek-v3.2", "deepseek-v3.1"),
    ("deepseek-v3", "deepseek-v3"),
    ("deepseek-r1", "deepseek-v3"),
    ("glm-4", "glm-4.5"),
    ("kimi", "kimi-k2"),
    ("mistral-small-3.2", "mistral-v11"),
    ("mistral-small-2506", "mistral-v11"),
    ("mistral-medium", "mistral-v11"),
    ("mistral-large-3", "mistral-v11"),
    ("ministral-3", "mistral-v11"),
    ("magistral", "mistral-v11"),
    ("devstral", "mistral-v11"),
    ("mistral", "mistral"),
    ("mixtral", "mistral"),
    ("ministral", "mistral"),
    ("pixtral", "mistral"),
    ("llama-4", "pythonic"),
    ("llama-3", "llama3"),
    ("llama3", "llama3"),
]


def tool_format_names() -> list[str]:
    """The names that `tool_format` knows, those that were registered with them."""
    return sorted(_FORMATS)


def register_tool_format(name: str, make: Maker) -> None:
    """Give a format a name, for this process; it goes before one that is there already.

    Args:
        name: what `tool_format` takes; case, `_` and `-` make no difference.
        make: the class, or any function of `(tools)`.

    Raises:
        InvalidArgument: `make` cannot be called.
    """
    if not callable(make):
        raise InvalidArgument("make", make, "give a class derived from ToolFormat")
    _FORMATS[_plain(name)] = make


def tool_format(name: str | ToolFormat, tools: Iterable[Mapping[str, Any]] | None = None) -> ToolFormat:
    """A text format of tool calls by name; `tool_format_names` lists them.

    Args:
        name: such as "hermes"; a format is taken as it is.
        tools: the tools on offer; None for those it has.

    Raises:
        InvalidArgument: nothing has that name; the message lists the names.

    >>> tool_format("hermes").tool_type
    'hermes'
    """
    if isinstance(name, ToolFormat):
        return name if tools is None else name.with_tools(tools)
    wanted = _plain(name) if isinstance(name, str) else ""
    wanted = wanted if wanted in _FORMATS else _ALIASES.get(wanted, wanted)
    if wanted not in _FORMATS:
        close = difflib.get_close_matches(wanted, tool_format_names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        cure = f"there is no such format; {hint}The names are {', '.join(tool_format_names())}"
        raise InvalidArgument("tool_format", name, cure)
    make = _FORMATS[wanted]
    if isinstance(make, str):
        module, _, kind = make.rpartition(".")
        make = getattr(importlib.import_module(f"{__package__}.formats.{module}"), kind)
    made: ToolFormat = make(tools or ())
    return made


def tool_format_for(
    model: str, tools: Iterable[Mapping[str, Any]] | None = None, override: str | ToolFormat | None = None
) -> ToolFormat:
    """The text format that a model was most likely trained on, by its name; Hermes where the name says nothing.

    Args:
        model: a model's name, such as "Qwen/Qwen3-8B", or a path that ends with one.
        tools: the tools on offer.
        override: the format to take whatever the model is called.

    >>> tool_format_for("NousResearch/Hermes-3-Llama-3.1-8B").tool_type
    'hermes'
    """
    if override is not None:
        return tool_format(override, tools)
    plain = _plain(model)
    return tool_format(next((name for part, name in _MODELS if part in plain), "hermes"), tools)


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")
