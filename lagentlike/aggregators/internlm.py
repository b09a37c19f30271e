"""Render tool use as InternLM2 was trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..prompts import StrParser
from ..schema import AgentMessage, ToolStatusCode
from .default import as_content, DefaultAggregator

__all__ = ["InternLMToolAggregator"]


class InternLMToolAggregator(DefaultAggregator):
    """The agent's own messages with their tool call as the parser writes it, the user's as `user`, all others (tools,
    other agents) as messages of the environment.

    Args:
        environment_role: role of what comes from the environment.
        environment_begin, environment_end: put before and after it.
        user_names: senders that are users.
        few_shot: chat messages shown between the system prompt and the conversation.
    """

    def __init__(
        self,
        environment_role: str = "environment",
        environment_begin: str = "",
        environment_end: str = "",
        user_names: Sequence[str] | None = None,
        few_shot: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        self.environment_role = environment_role
        self.environment_begin = environment_begin
        self.environment_end = environment_end
        self.user_names = frozenset(user_names or ("user",))
        self.few_shot = list(few_shot or ())

    def render(self, message: AgentMessage, name: str, parser: StrParser | None) -> list[dict[str, Any]]:
        if message.tool_results is not None or message.tool_calls:
            return super().render(message, name, parser)
        if message.is_from(name):
            return [{"role": "assistant", "content": _as_written(message, parser)}]
        if message.sender in self.user_names:
            return [{"role": "user", "content": as_content(message.content)}]
        content = as_content(message.content)
        if isinstance(content, str):
            content = f"{self.environment_begin}{content}{self.environment_end}"
        return [{"role": self.environment_role, "content": content}]

    def _examples(self) -> list[dict[str, Any]]:
        return [dict(example) for example in self.few_shot]


def _as_written(message: AgentMessage, parser: StrParser | None) -> Any:
    """The model's text with a whole tool call, though a stop word may have cut its end."""
    formatted = message.formatted
    if parser is None or not isinstance(formatted, dict) or not formatted.get("tool_type"):
        return as_content(message.content)
    if formatted.get("status") != ToolStatusCode.VALID_TOOL:
        return as_content(message.content)
    return parser.format_response(formatted)
