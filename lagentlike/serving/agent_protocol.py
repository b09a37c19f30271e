"""What clients of agents send, checked: the native requests, and chat completions as a face of an agent."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ..errors import StateError
from ..memory import Memory
from ..module import Module
from ..schema import AgentMessage, Completion
from .openai_protocol import (
    BadRequest,
    CHAT_FIELDS,
    ChatRequest,
    Choices,
    generation_params,
    read_chat_fields,
    whole,
)

__all__ = [
    "SAMPLING_PARAMS",
    "AgentChat",
    "ForkBody",
    "TurnBody",
    "TurnRequest",
    "check_turn_key",
    "checked_name",
    "completion_of",
    "read_body",
    "read_chat",
    "read_turn",
    "take_over",
    "turn_within",
]

SAMPLING_PARAMS = frozenset(
    {"max_new_tokens", "repetition_penalty", "seed", "stop_words", "temperature", "top_k", "top_p"}
)
"""The generation parameters that change how an agent's model samples, and nothing else."""

turn_within: ContextVar[str | None] = ContextVar("lagentlike_turn_within", default=None)
"""The turn of a client that this code runs in: turns of agents elsewhere can be taken back with it."""

_NAME = "[A-Za-z0-9_-]{1,64}"
SessionName = Annotated[str, StringConstraints(strict=True, pattern=f"^{_NAME}$")]
Item = Annotated[str, StringConstraints(strict=True)] | dict[str, Any]


class TurnBody(BaseModel):
    """The body of `/forward` and `/stream`."""

    model_config = ConfigDict(extra="forbid", title="Turn")

    message: Item | list[Item] = Field(description="A text, a message such as the reply has it, or a list of these.")
    session_id: SessionName | None = Field(
        None, description="The session that the turn belongs to; a new one if there is none."
    )
    params: dict[str, Any] = Field({}, description="Parameters of the call that the server lets through.")


class ForkBody(BaseModel):
    """The body of `/sessions/{session_id}/fork`."""

    model_config = ConfigDict(extra="forbid", title="Fork")

    new_session_id: SessionName = Field(description="The session that begins where the other one is.")


@dataclass(frozen=True)
class TurnRequest:
    """One turn: what the agent is told, in which session, how.

    Attributes:
        turn: the key that makes a retry safe, and by which it is taken back.
        within: names the client's own turn that this one is part of; until another one begins, it can be taken back.
    """

    messages: list[AgentMessage]
    session_id: str
    params: dict[str, Any]
    turn: str | None = None
    within: str | None = None


def read_body(kind: type[BaseModel], body: Any) -> Any:
    """A body, checked.

    Raises:
        BadRequest: it does not fit; the message names the field.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(piece) for piece in first["loc"] if isinstance(piece, int) or piece in kind.model_fields)
        where = where or ".".join(map(str, first["loc"][:1]))[:100]
        if first["type"] == "extra_forbidden":
            raise BadRequest(f"{where} is not served here: leave it out", param=where) from None
        if where in ("session_id", "new_session_id"):
            raise _bad_name(where) from None
        raise BadRequest(f"{where or 'the body'}: {first['msg']}", param=where or None) from None


def read_turn(body: Any, allowed: frozenset[str], turn: str | None, within: str | None = None) -> TurnRequest:
    """The body of a native turn, checked.

    Raises:
        BadRequest: it does not fit.
    """
    read: TurnBody = read_body(TurnBody, body)
    items = read.message if isinstance(read.message, list) else [read.message]
    try:
        messages = Memory.parse(items)
    except StateError as error:
        raise BadRequest(str(error), param="message") from error
    if not messages:
        raise BadRequest("message is empty: give at least one", param="message")
    check_params(read.params, allowed, "params")
    return TurnRequest(messages, read.session_id or uuid.uuid4().hex, read.params, turn, within)


def check_params(params: Mapping[str, Any], allowed: frozenset[str], where: str) -> None:
    """Refuse parameters that the server does not let through."""
    for name in params:
        if name not in allowed:
            takes = f"it takes {', '.join(sorted(allowed))}" if allowed else "it takes none"
            raise BadRequest(f"{name[:100]!r} is no parameter that this agent takes from clients: {takes}", param=where)


def check_turn_key(headers: Mapping[str, str], name: str = "Idempotency-Key") -> str | None:
    """The key that makes a turn safe to ask for again, or another one in a header; an empty one is none.

    Raises:
        BadRequest: it is too long.
    """
    key = headers.get(name) or None
    if key is not None and len(key) > 128:
        raise BadRequest(f"{name} is longer than 128 characters", param=name)
    return key


def checked_name(name: str, value: Any) -> str:
    """A session's id, if it is one.

    Raises:
        BadRequest: it is not.
    """
    if not isinstance(value, str) or not re.fullmatch(_NAME, value):
        raise _bad_name(name)
    return value


def _bad_name(name: str) -> BadRequest:
    return BadRequest(
        f"{name} must be a text of 1 to 64 letters, digits, '_' and '-'", param=name, code="bad_session_id"
    )


@dataclass(frozen=True)
class AgentChat:
    """A chat completion that an agent is asked for.

    Attributes:
        chat: what `Reply` needs to know.
        past: the messages before the new ones, as `(by the agent, text)`.
        turn: the turn that the new messages make.
        session_id: the session, if the client named one.
    """

    chat: ChatRequest
    past: list[tuple[bool, str]]
    turn: TurnRequest
    session_id: str | None


def read_chat(body: Any, header: str | None, allowed: frozenset[str], turn: str | None) -> AgentChat:
    """The body of a chat completion, checked; the session is in a header, in `metadata.session_id` or in `user`.

    Raises:
        BadRequest: it does not fit.
    """
    read = read_chat_fields(body, _CHAT_FIELDS)
    params = generation_params(read)
    check_params(params, allowed, "params")
    said = [_said(index, message) for index, message in enumerate(read["messages"])]
    begin = max((index + 1 for index, (own, _) in enumerate(said) if own), default=0)
    new = [AgentMessage(content=text) for _, text in said[begin:]]
    if not new:
        raise BadRequest("the last message must be the user's", param="messages")
    name = header if header is not None else read.get("metadata", {}).get("session_id", read.get("user"))
    session_id = None if name is None else checked_name("session_id", name)
    return AgentChat(
        ChatRequest(**Choices.shared(read), messages=read["messages"], params=params),
        said[:begin],
        TurnRequest(new, session_id or "", params, turn),
        session_id,
    )


def completion_of(reply: AgentMessage) -> Completion:
    """The reply of an agent as a chat completion has it."""
    reason = "length" if reply.finish_reason == "length" else "stop"
    return Completion(reply.text, reasoning=reply.reasoning, usage=reply.usage, model=reply.model, finish_reason=reason)


def take_over(unit: Module, session_id: Any, past: list[tuple[bool, str]]) -> None:
    """Put a conversation that a client brings along, if any, into an agent that has not spoken.

    Only an agent that talks to the user itself can take one over: one with a model, or one whose child `agent` has it.

    Raises:
        BadRequest: the agent is of another kind.
    """
    if not past:
        return
    path: list[Any] = [unit]
    while getattr(path[-1], "llm", None) is None and "agent" in dict(path[-1].named_children()):
        path.append(path[-1].get_submodule("agent"))
    if getattr(path[-1], "llm", None) is None:
        raise BadRequest(
            "this agent remembers by itself, and cannot take a conversation over: send the new messages alone, with a "
            "session id in the header X-Session-Id",
            param="messages",
        )
    for one in path:
        if one.memory is not None:
            messages = [AgentMessage(content=text, sender=one.name if own else "user") for own, text in past]
            one.memory.add(messages, session_id)


def _said(index: int, message: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a message is the assistant's, and its text."""
    where, role, content = f"messages[{index}]", message["role"], message.get("content")
    if role not in ("user", "assistant") or message.get("tool_calls"):
        raise BadRequest(
            f"{where} is of the role {role[:40]!r}{' with tool calls' if role == 'assistant' else ''}: an agent has "
            "prompts and tools of its own, so send only what the user and the agent said",
            param=f"{where}.role",
        )
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise BadRequest(f"{where}.content must be a text", param=f"{where}.content")
    return role == "assistant", content


_NOT_SERVED = ("logprobs", "return_token_ids", "tool_choice", "tools", "top_logprobs")
_CHAT_FIELDS: dict[str, Callable[[str, Any], Any]] = {
    **{name: check for name, check in CHAT_FIELDS.items() if name not in _NOT_SERVED},
    "n": whole(1, 1),
    "user": lambda name, value: value,
    "metadata": CHAT_FIELDS["stream_options"],  # an object
}
