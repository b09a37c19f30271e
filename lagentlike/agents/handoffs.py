"""Give a conversation to another agent, which then has it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..actions import FunctionTool
from ..errors import InvalidArgument
from ..schema import AgentMessage
from .agent import Agent
from .run import KEY, Run, run_of

__all__ = ["Handoff"]


@dataclass(frozen=True)
class Handoff:
    """Another agent that may take a conversation over, for good: it also gets what the user says later in the session.

    The model is offered a tool `transfer_to_<name>`. The other agent is given the conversation so far as one text.

    Args:
        agent: who takes over.
        description: when to hand over; the agent's description by default.
        brief: makes what the other agent is given of the conversation so far, a list of message dicts; `transcript` by
            default.
    """

    agent: Agent
    description: str = ""
    brief: Callable[[Sequence[Mapping[str, Any]]], str] = lambda messages: transcript(messages)

    def __post_init__(self) -> None:
        if not isinstance(self.agent, Agent):
            raise InvalidArgument("agent", self.agent, "give the agent that takes over")

    @property
    def name(self) -> str:
        """Name of the tool."""
        return "transfer_to_" + re.sub(r"[^A-Za-z0-9_-]", "_", self.agent.name)[:48]

    def tool(self) -> FunctionTool[..., str]:
        """What the model calls to hand over."""
        name = self.agent.name

        def transfer() -> str:
            return f"{name} has the conversation now."

        about = self.description or self.agent.description or ""
        return FunctionTool(transfer, self.name, f"Hand the conversation over to {name}. {about}".strip())

    def passed_on(self, reply: AgentMessage, run: Run, sender: str) -> AgentMessage:
        """The reply of the agent that took over, as that of the one that handed over."""
        dumped = run.dump("")
        theirs = run_of(reply)
        for name in ("turns", "api_calls", "tool_calls"):
            dumped[name] += theirs.get(name, 0)
        usage = theirs.get("usage", {})
        dumped["usage"] = {name: count + usage.get(name, 0) for name, count in dumped["usage"].items()}
        dumped.update({name: theirs[name] for name in ("detail", "pending") if name in theirs})
        update = {"sender": sender, "usage": None, "tokens": None, "extra_info": {KEY: dumped}}
        return reply.model_copy(update={"finish_reason": "stop", **update} if not theirs else update)


def transcript(messages: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as a text that another agent can go on from."""
    lines = ["You take over this conversation. So far:"]
    for message in messages:
        if message["role"] == "system":
            continue
        if message.get("content"):
            content = message["content"]
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            lines.append(f"{message['role']}: {text}")
        lines += [
            f"{message['role']} calls {call['function']['name']}({call['function']['arguments']})"
            for call in message.get("tool_calls") or ()
        ]
    return "\n".join(lines)
