"""The tools that run in a slot, as models are told of them, with the check of their arguments."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ToolArgumentsError
from ..prompts.parsers.tool_call import loads_strictly
from ..schema import ToolCall, ToolResult

__all__ = ["POLICY_FIELDS", "SANDBOX_TOOLS", "SandboxTool", "Tools", "arguments_of"]

MAX_COMMAND = 1024 * 1024
"""Longest text, in characters, that a call may carry."""

POLICY_FIELDS = frozenset(
    {
        "allow_network",
        "isolation",
        "network",
        "privileged",
        "require_sandbox",
        "require_stateful_sandbox",
        "sandbox",
        "timeout",
        "timeout_ms",
        "timeout_s",
    }
)
"""Arguments that say how a call is run: a model that writes them is not obeyed."""

Where = Literal["sandbox", "host", "server"]


class Tools(Protocol):
    """The tools of a trajectory, as `lagentlike.tools.ToolRegistry` holds them."""

    def list_tools(self) -> list[str]:
        """Their names."""

    def where(self, name: str) -> Where | None:
        """Where a tool runs: in the sandbox, in this process or in the ToolServer; None if there is no such tool."""

    def get_schemas(self) -> list[dict[str, Any]]:
        """What models are told of them."""

    def execute(
        self, call: ToolCall, *, session_id: str | int = 0, timeout_s: float | None = None
    ) -> Awaitable[ToolResult]:
        """Run a tool that does not need the sandbox; whatever it does becomes its result."""


@dataclass(frozen=True)
class SandboxTool:
    """A tool that runs in a slot.

    Attributes:
        name: what it is called by.
        description: what models are told it does.
        model: its arguments.
    """

    name: str
    description: str
    model: type[BaseModel]

    @cached_property
    def schema(self) -> dict[str, Any]:
        """What models are told: `{"type": "function", "function": {…}}`."""
        parameters = _untitled(self.model.model_json_schema())
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, checked, without those that were left out.

        Raises:
            ToolArgumentsError: they do not fit; the message tells a model what to change.
        """
        try:
            return self.model.model_validate(dict(arguments), strict=True).model_dump(exclude_unset=True)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in error.errors()[:5]
            )
            raise ToolArgumentsError(f"the arguments of {self.name} are wrong: {faults}") from None


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call as an object.

    Raises:
        ToolArgumentsError: the call could not be read, or its arguments are no object.
    """
    if call.error:
        raise ToolArgumentsError(call.error)
    given = call.arguments
    if isinstance(given, str):
        if len(given) > 2 * MAX_COMMAND:
            raise ToolArgumentsError(f"the arguments have {len(given):,} characters: send at most {2 * MAX_COMMAND:,}")
        try:
            given = loads_strictly(given) if given.strip() else {}
        except ValueError as error:
            raise ToolArgumentsError(f"the arguments are no valid JSON: {error}") from None
    if not isinstance(given, Mapping):
        raise ToolArgumentsError(f"the arguments are {type(given).__name__}: write an object, such as {{}}")
    return dict(given)


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


Text = Annotated[str, Field(max_length=MAX_COMMAND)]
Path = Annotated[str, Field(min_length=1, max_length=4096)]


class _Command(_Arguments):
    command: Text = Field(description="What bash runs; it may have many lines.")


class _Tmux(_Arguments):
    action: Literal["start", "send_keys", "capture", "stream", "stop"] = Field(
        description="start: begin a session; send_keys: type; capture: what is on the screen; stream: what was written "
        "since the last stream; stop: end the session."
    )
    session: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")] = Field("main", description="Which session.")
    command: Text | None = Field(None, description="For start: what runs in it; a shell by default.")
    keys: Text | None = Field(
        None, description="For send_keys: a text to type, or with literal=false names of keys, such as C-c or Enter."
    )
    literal: bool = Field(True, description="For send_keys: whether keys is a text.")
    enter: bool = Field(True, description="For send_keys: whether Enter is pressed after it.")
    lines: Annotated[int, Field(ge=0, le=10_000)] = Field(
        0, description="For capture: how many lines above the screen are given too."
    )
    wait_s: Annotated[float, Field(ge=0, le=30)] = Field(
        0.0, description="For stream and send_keys: seconds to wait before the output is looked at."
    )


class _Read(_Arguments):
    path: Path = Field(description="The file, from the workspace.")
    offset: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(1, description="The first line to show, from 1.")
    limit: Annotated[int, Field(ge=1, le=10_000)] = Field(2000, description="Most lines to show.")


class _Write(_Arguments):
    path: Path = Field(description="The file, from the workspace; directories that are missing are made.")
    content: Text = Field(description="Its text.")
    append: bool = Field(False, description="Whether it is added to the file instead of taking its place.")


SANDBOX_TOOLS: dict[str, SandboxTool] = {
    tool.name: tool
    for tool in (
        SandboxTool(
            "bash",
            "Run a bash command in the workspace of the sandbox. Files last; variables, the directory and programs in "
            "the background do not. There is no input.",
            _Command,
        ),
        SandboxTool(
            "terminal_stateful",
            "Run a bash command in the one shell of the sandbox: its directory, variables, functions and programs in "
            "the background last from call to call. There is no input: use tmux for programs that ask.",
            _Command,
        ),
        SandboxTool("tmux", "Work with interactive programs in a terminal of the sandbox.", _Tmux),
        SandboxTool("read_file", "Read a text file of the workspace.", _Read),
        SandboxTool("write_file", "Write a text file of the workspace.", _Write),
    )
}
"""By name."""


def _untitled(schema: Any) -> Any:
    """The schema without the titles that pydantic adds."""
    if isinstance(schema, dict):
        return {key: _untitled(item) for key, item in schema.items() if key != "title" or not isinstance(item, str)}
    return [_untitled(item) for item in schema] if isinstance(schema, list) else schema
