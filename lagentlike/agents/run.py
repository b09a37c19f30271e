"""What one run of an agent did so far, and what it needs to go on later."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ..errors import StateError
from ..schema import AgentMessage, ToolResult, Usage

__all__ = ["FinishReason", "Over", "Run", "run_of"]

FinishReason = Literal[
    "stop",
    "max_turns",
    "length",
    "budget_exceeded",
    "interrupted",
    "approval_required",
    "handed_back",
    "guardrail",
    "invalid_tool_calls",
    "empty_reply",
    "context_overflow",
    "error",
]
"""Why a run ended: the model answered; or the turns, the length of an answer or a limit was used up; or somebody
stopped it; or a call waits for an approval; or the conversation was handed back; or a guardrail refused; or the model
called no real tool, or said nothing, too often; or the conversation does not fit the model; or a model call failed."""


class Over(Exception):  # the end of a run is no error
    """A run is over."""

    def __init__(self, reason: FinishReason, text: str, detail: str = "", reply: AgentMessage | None = None) -> None:
        self.reason = reason
        self.text = text
        self.detail = detail
        self.reply = reply  # another agent's, where that had the last word


@dataclass
class Run:
    """What one run did so far, and what it needs to go on later; it is kept in the `extra_info` of the reply.

    Attributes:
        turns: how often the model was asked and answered.
        api_calls: how often it was asked.
        tool_calls: how many calls were made.
        usage: what the answers cost, those of sub-agents included.
        bad_turns: how many replies in a row called what is no tool.
        unasked: messages that the model was not given yet.
        results: results of the first of the last reply's calls, while the others wait.
        pending: calls of the last reply that wait for an approval: `id`, `name`, `arguments`.
        decisions: what was decided on calls, by their ids: approved or not, and why.
        active: name of the handoff whose agent has the conversation now.
        since: from which of that agent's messages on it has it; 0 while it was not told of it.
    """

    turns: int = 0
    api_calls: int = 0
    tool_calls: int = 0
    usage: Usage = field(default_factory=Usage)
    bad_turns: int = 0
    unasked: list[AgentMessage] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)
    pending: list[dict[str, Any]] = field(default_factory=list)
    decisions: dict[str, tuple[bool, str]] = field(default_factory=dict)
    active: str = ""
    since: int = 0
    earlier: float = 0.0  # seconds until it was paused
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it is under way."""
        return self.earlier + time.monotonic() - self.began

    def add(self, other: Mapping[str, Any]) -> None:
        """Count what another agent's run, as `run_of` gives it, used as well."""
        self.turns += int(other.get("turns", 0))
        self.api_calls += int(other.get("api_calls", 0))
        self.tool_calls += int(other.get("tool_calls", 0))
        self.usage += Usage(**other.get("usage", {}))

    def begin_anew(self) -> None:
        """Forget what was counted and left over: another run begins."""
        self.__dict__.update(Run().__dict__)

    def dump(self, detail: str) -> dict[str, Any]:
        """It as plain data, for the reply."""
        dumped: dict[str, Any] = {
            "turns": self.turns,
            "api_calls": self.api_calls,
            "tool_calls": self.tool_calls,
            "usage": usage_of(self.usage),
            "seconds": round(self.seconds, 6),
        }
        if detail:
            dumped["detail"] = detail
        if self.unasked:
            dumped["unasked"] = [message.plain() for message in self.unasked]
        if self.results:
            dumped["results"] = [asdict(result) for result in self.results]
        for name in ("bad_turns", "pending", "decisions", "active", "since"):
            if getattr(self, name):
                dumped[name] = getattr(self, name)
        return dumped

    @classmethod
    def after(cls, reply: AgentMessage | None) -> Run:
        """A new run in a session whose last reply this is: it has what the one before left over.

        Raises:
            StateError: the reply holds something else.
        """
        dumped = {} if reply is None else run_of(reply)
        if not dumped:
            return cls()
        try:
            run = cls(
                unasked=[AgentMessage(**message) for message in dumped.get("unasked", ())],
                results=[ToolResult(**result) for result in dumped.get("results", ())],
                pending=[dict(call) for call in dumped.get("pending", ())],
                decisions={id_: (bool(yes), str(why)) for id_, (yes, why) in dumped.get("decisions", {}).items()},
                active=str(dumped.get("active", "")),
                since=int(dumped.get("since", 0)),
            )
            if run.pending:  # it goes on, or ends with the pending calls
                own = dumped.get("own", dumped)
                run.turns, run.api_calls = int(own["turns"]), int(own["api_calls"])
                run.tool_calls, run.usage = int(own["tool_calls"]), Usage(**own["usage"])
                run.bad_turns, run.earlier = int(dumped.get("bad_turns", 0)), float(dumped["seconds"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StateError(f"the session's last reply holds no run that could go on: {error}") from error
        return run


KEY = "run"


def usage_of(usage: Usage) -> dict[str, int]:
    """Requests and tokens by name."""
    return {name: getattr(usage, name) for name in _COUNTS}


_COUNTS = tuple(item.name for item in fields(Usage))


def run_of(reply: AgentMessage) -> dict[str, Any]:
    """What a reply tells of its run."""
    told = reply.extra_info.get(KEY, {}) if isinstance(reply.extra_info, dict) else {}
    return told if isinstance(told, dict) else {}
