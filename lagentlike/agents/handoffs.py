"""Give a conversation to another agent, which then has it until it gives it back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..actions.base import BaseAction
from ..errors import InvalidArgument
from ..memory import SessionId
from ..schema import AgentMessage
from .agent import Agent
from .run import KEY, Run, run_of

__all__ = ["HandBack", "Handoff"]


def transcript(messages: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as a text that another agent can go on from."""
    return "\n".join(["You take over this conversation. So far:", *_lines(messages, "assistant")])


@dataclass(frozen=True)
class Handoff:
    """Another agent that may take a conversation over: it also gets what the user says later in the session.

    The model is offered a tool `transfer_to_<name>`. The other agent is given the conversation so far as one text. It
    has it for good, unless it has the tool `HandBack`, or the handoff is one that `returns`. Whoever has the
    conversation again is told what was said meanwhile.

    Args:
        agent: who takes over.
        description: when to hand over; the agent's description by default.
        brief: makes what the other agent is given of the conversation so far, a list of message dicts; `transcript` by
            default.
        returns: whether the other agent has it for one answer only; what the user says next goes to this one again.
    """

    agent: Agent
    description: str = ""
    brief: Callable[[Sequence[Mapping[str, Any]]], str] = transcript
    returns: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.agent, Agent):
            raise InvalidArgument("agent", self.agent, "give the agent that takes over")

    @property
    def name(self) -> str:
        """Name of the tool."""
        return "transfer_to_" + re.sub(r"[^A-Za-z0-9_-]", "_", self.agent.name)[:48]

    def tool(self) -> BaseAction:
        """What the model calls to hand over."""
        to, about = self.agent.name, self.description or self.agent.description or ""
        return _Transfer(f"Hand the conversation over to {to}. {about}".strip(), self.name, to)

    def messages(self, session_id: SessionId) -> list[dict[str, Any]]:
        """What the other agent knows of the session, as message dicts."""
        told = getattr(self.agent, "messages", self.agent._prompt)  # only some agents have the former
        messages: list[dict[str, Any]] = [] if self.agent.memory is None else told(session_id)
        return messages

    def report(self, session_id: SessionId, since: int, why: str = "") -> str:
        """What who has the conversation again is told of the meantime."""
        name = self.agent.name
        lines = [f"{name} had the conversation:", *_lines(self.messages(session_id)[since:], name)]
        return "\n".join([*lines, f"{name} hands it back: {why}" if why else "You have it again."])

    def passed_on(self, reply: AgentMessage, run: Run, sender: str) -> AgentMessage:
        """The reply of the agent that took over, as that of the one that handed over."""
        own, theirs = run.dump(""), run_of(reply)
        run.add(theirs)
        dumped = run.dump("")
        dumped.update({name: theirs[name] for name in ("detail", "pending") if name in theirs})
        if "pending" in dumped:  # theirs goes on, and will be counted whole
            dumped["own"] = own
        update = {"sender": sender, "usage": None, "tokens": None, "extra_info": {KEY: dumped}}
        return reply.model_copy(update={"finish_reason": "stop", **update} if not theirs else update)


class HandBack(BaseAction):
    """A tool that gives a conversation back to the agent that handed it over.

    A run in which it is called ends, with `finish_reason` "handed_back"; the agent that handed over goes on with the
    same message of the user.

    >>> HandBack().name
    'transfer_back'
    """

    def __init__(self, description: str | None = None, name: str = "transfer_back") -> None:
        super().__init__(description, name)

    def run(self, message: str = "") -> str:
        """Hand the conversation back to the agent that you have it from, when your part is done or it is not for you.

        Args:
            message: what was done, and what is left to do.
        """
        return message or "the conversation is handed back"


class _Transfer(BaseAction):
    """The tool of a handoff."""

    def __init__(self, description: str, name: str, to: str) -> None:
        super().__init__(description, name)
        self.to = to

    def run(self) -> str:
        """Hand the conversation over."""
        return f"{self.to} has the conversation now."


def _lines(messages: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Messages line by line, those of the assistant under a name."""
    lines = []
    for message in messages:
        role = name if message["role"] == "assistant" else message["role"]
        if role == "system":
            continue
        if message.get("content"):
            content = message["content"]
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            lines.append(f"{role}: {text}")
        lines += [
            f"{role} calls {call['function']['name']}({call['function']['arguments']})"
            for call in message.get("tool_calls") or ()
        ]
    return lines
