"""What an agent did in a session, read from its memory as a trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TYPE_CHECKING

from ..ledger import TokenLedger
from ..memory import SessionId
from ..schema import AgentMessage, Usage
from ..trajectory import as_parts, FinishReason, Trajectory

if TYPE_CHECKING:
    from .agent import Agent

__all__ = ["placed", "tools_beside", "trajectory_of"]


def trajectory_of(root: Agent, path: str, unit: Agent, session_id: SessionId) -> Trajectory | None:
    """What the agent at a path of a tree did in a session; None if it did not ask its model there."""
    if unit.llm is None or unit.memory is None:
        return None
    answers = [message for message in unit.memory.get(session_id).get_memory() if message.is_from(unit.name)]
    if not answers:
        return None
    messages = unit._prompt(session_id)
    ledger, usage = TokenLedger(), Usage()
    shown = [as_parts(message) for message in messages]
    for index, answer in placed(messages, answers):
        ledger.add(answer.tokens, index)
        usage += answer.usage or Usage()
        whole = answer.reasoning is None  # else the thinking was told apart, and the text of the ids has it once more
        if whole and answer.tokens is not None and answer.tokens.ids and hasattr(unit.llm, "detokenize"):
            shown[index] = as_parts(messages[index], unit.llm.detokenize(answer.tokens.said))
    return Trajectory(
        messages=shown,
        segments=ledger.segments,
        tools=tools_beside(root, path, only_native=True),  # the messages tell of those that were offered as text
        finish_reason=_reason(answers[-1]),
        agent=path,
        session_id=session_id,
        usage=usage,
        counts=ledger.counts,
    )


def placed(
    messages: Sequence[Mapping[str, Any]], answers: Sequence[AgentMessage]
) -> Iterator[tuple[int, AgentMessage]]:
    """An agent's answers with their places among the chat messages, the last answer at the last assistant message.

    What comes before them, such as the assistant's part in examples, is nobody's answer; answers that the messages do
    not reach back to are left out.
    """
    places = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    count = min(len(places), len(answers))
    return zip(places[len(places) - count :], answers[len(answers) - count :], strict=True)


def tools_beside(root: Agent, path: str, only_native: bool = False) -> list[dict[str, Any]]:
    """The tools that the agent at a path is offered, natively or as text: those of the executor beside it."""
    parent = root.get_submodule(path.rpartition(".")[0])
    if not path or (only_native and not getattr(parent, "native", True)):
        return []
    beside = [tools for child in parent.children() if callable(tools := getattr(child, "tools", None))]
    return beside[0]() if len(beside) == 1 else []


def _reason(last: AgentMessage) -> FinishReason:
    if last.finish_reason == "max_turns" or last.tool_calls:
        return "max_turns"
    return "max_model_len" if last.finish_reason == "length" else "no_tool_calls"
