"""What an agent did for a task, in the shapes that Atropos environments and their trainers read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self

from ..errors import InvalidArgument
from ..ledger import Segment
from ..schema import ToolCall, ToolResult

__all__ = ["NOT_SAMPLED", "NO_LOGPROB", "AgentConfig", "AgentResult", "AgentStep", "SequenceData", "observation"]

NOT_SAMPLED = -100
"""Mask of a token that the model was given."""

NO_LOGPROB = 1.0
"""Log-probability of such a token; a real one is never above 0."""


@dataclass(frozen=True)
class AgentConfig:
    """How an `AtroposAgent` works.

    Attributes:
        temperature: of sampling; None leaves it to the model.
        max_tokens: most tokens of one answer; None leaves it to the model.
        max_steps: most answers.
        system_prompt: what stands in the place of the ready words; the tools are told of behind it, or where it has
            `{tools}`. One that has `<tools>` itself is taken as it is.
        tool_delay_s: seconds to wait between two tool calls.
        working_dir: where tools work, which the model is told.
        tool_responses: how results are written between `<tool_response>` tags: "json", or "text" as the chat templates
            of Hermes and Qwen write them, which small models may know alone.

    Raises:
        InvalidArgument: a value is none that is allowed.
    """

    temperature: float | None = 0.7
    max_tokens: int | None = None
    max_steps: int = 50
    system_prompt: str | None = None
    tool_delay_s: float = 0.0
    working_dir: str | None = None
    tool_responses: str = "json"

    def __post_init__(self) -> None:
        for name in ("max_steps", "max_tokens"):
            value = getattr(self, name)
            if value is None and name == "max_tokens":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgument(name, value, "give a whole number of at least 1")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise InvalidArgument("temperature", self.temperature, "give 0 or more, or None for the model's own")
        if not 0 <= self.tool_delay_s < math.inf:
            raise InvalidArgument("tool_delay_s", self.tool_delay_s, "give seconds, 0 for no wait")
        if self.tool_responses not in ("json", "text"):
            raise InvalidArgument("tool_responses", self.tool_responses, "give json or text")


@dataclass
class SequenceData:
    """Tokens as a trainer reads them, all lists of one length.

    Attributes:
        full_text: the text of all tokens.
        tokens: their ids.
        masked_tokens: the id of each token that the model sampled, -100 on all others.
        logprobs: the natural log-probability of each token that the model sampled, 1.0 on all others; empty where the
            engine gave none.
    """

    full_text: str
    tokens: list[int]
    masked_tokens: list[int]
    logprobs: list[float]

    @classmethod
    def of(cls, segment: Segment, decode: Callable[[list[int]], str], stop: int | None = None) -> Self:
        """The first `stop` tokens of a segment, or all."""
        ids, mask = segment.ids[:stop], segment.mask[:stop]
        logprobs = [] if segment.logprobs is None else segment.logprobs[:stop]
        return cls(
            decode(ids),
            ids,
            [id_ if sampled else NOT_SAMPLED for id_, sampled in zip(ids, mask, strict=True)],
            [value if sampled else NO_LOGPROB for value, sampled in zip(logprobs, mask, strict=False)],
        )

    @classmethod
    def prefix(cls, segment: Segment, decode: Callable[[list[int]], str]) -> SequenceData:
        """What a segment holds now, copied when somebody looks at it: each step has one, and few are looked at."""
        return _Prefix(segment, decode)


class _Prefix(SequenceData):
    """The beginning of a segment that may have grown since."""

    def __init__(self, segment: Segment, decode: Callable[[list[int]], str]) -> None:
        self._source = segment, decode, len(segment)

    def __getattr__(self, name: str) -> Any:
        if name not in _FIELDS:
            raise AttributeError(name)
        self.__dict__.update(vars(SequenceData.of(*self._source)))
        return self.__dict__[name]


_FIELDS = frozenset(item.name for item in fields(SequenceData))


@dataclass
class AgentStep:
    """One answer of the model, and what came of its tool calls.

    Attributes:
        step_number: from 1.
        assistant_message: what the model wrote, thinking and calls included.
        tool_calls: the calls in it; one that could not be read has an `error`.
        tool_results: their results, in the same order.
        sequence_data: the tokens up to the end of this answer; None where the engine gave none.
        observation: the results as the model was shown them; made of `tool_results` where it is empty.
    """

    step_number: int
    assistant_message: str
    tool_calls: list[ToolCall] = field(default_factory=list)
    tool_results: list[ToolResult] = field(default_factory=list)
    sequence_data: SequenceData | None = None
    observation: str = ""

    def __post_init__(self) -> None:
        if self.tool_results and not self.observation:
            self.observation = observation(self.tool_results)

    @property
    def has_tool_calls(self) -> bool:
        """Whether the model called tools, rightly or wrongly."""
        return bool(self.tool_calls)


@dataclass
class AgentResult:
    """How a run of an `AtroposAgent` ended, and all that was said and sampled in it.

    Attributes:
        success: whether it came to an answer without a tool call.
        final_response: the last answer.
        steps: the answers in order.
        total_tokens: tokens of its rows, or, where the engine gave no ids, those it says it read and wrote.
        error: why it came to no answer.
        metadata: what else is known: `finish_reason` of the last answer, and the ledger's `counts`.
        trajectory_data: the tokens of the conversation; None where the engine gave none.
        earlier: the rows before it, where a prompt did not go on from the tokens so far (a chat template that drops
            thinking, say); what was sampled there is in no later row.
        prompt: the messages before the first answer.
    """

    success: bool
    final_response: str
    steps: list[AgentStep] = field(default_factory=list)
    total_tokens: int = 0
    error: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    trajectory_data: SequenceData | None = None
    earlier: list[SequenceData] = field(default_factory=list)
    prompt: list[dict[str, Any]] = field(default_factory=list)

    @property
    def num_steps(self) -> int:
        """How often the model answered."""
        return len(self.steps)

    @property
    def total_tool_calls(self) -> int:
        """How many tools it called."""
        return sum(len(step.tool_calls) for step in self.steps)

    def to_messages(self) -> list[dict[str, Any]]:
        """What was said after the prompt: the answers, and the results of their calls as messages of the user."""
        messages: list[dict[str, Any]] = []
        for step in self.steps:
            messages.append({"role": "assistant", "content": step.assistant_message})
            if step.observation:
                messages.append({"role": "user", "content": step.observation})
        return messages

    def to_scored_data(self, score: float) -> dict[str, Any] | None:
        """The conversation as a row of a group: `tokens`, `masks`, `scores` and `logprobs`; None without tokens."""
        return None if self.trajectory_data is None else _row(self.trajectory_data, score)

    def to_scored_rows(self, score: float) -> list[dict[str, Any]]:
        """All rows, one for each unbroken run of tokens, so that no answer is lost to training."""
        last = [] if self.trajectory_data is None else [self.trajectory_data]
        return [_row(sequence, score) for sequence in (*self.earlier, *last)]


def observation(results: list[ToolResult], form: str = "json") -> str:
    """Results of tools as the model is shown them, in one message of the user.

    Args:
        results: in the order of the calls.
        form: "json" or "text"; see `AgentConfig.tool_responses`.
    """
    if form == "json":
        return "\n".join(result.to_xml() for result in results)
    return "\n".join(f"<tool_response>\n{_inside(result)}\n</tool_response>" for result in results)


def _inside(result: ToolResult) -> str:
    """A result as text that does not end the block it stands in: also what a command wrote that failed."""
    text = result.text if result.success or not result.output else f"{result.output.rstrip()}\n{result.text}"
    return text.replace("</tool_response", "<\\/tool_response")


def _row(sequence: SequenceData, score: float) -> dict[str, Any]:
    return {
        "tokens": sequence.tokens,
        "masks": sequence.masked_tokens,
        "scores": score,
        "logprobs": sequence.logprobs,
    }
