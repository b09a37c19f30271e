"""The agent of Atropos environments: it reasons, calls tools and reads their results, all as text of known tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..errors import BudgetExceeded, EnvironmentFailed, InvalidArgument, SandboxError
from ..ledger import Segment, TokenLedger
from ..prompts.parsers.tool_formats import tool_format
from ..schema import Completion, ToolCall, ToolResult, Usage
from ..tools import ToolRegistry
from .answering import Answers, opened
from .result import AgentConfig, AgentResult, AgentStep, observation, SequenceData

__all__ = ["AtroposAgent", "ExecuteTool", "system_prompt"]

ExecuteTool = Callable[[ToolCall], Awaitable[ToolResult]]
"""Runs one tool call. What a tool does wrong is in its result; `EnvironmentFailed` and `SandboxError` end the run."""

Messages = Sequence[Mapping[str, Any]]


class AtroposAgent:
    """Reasons, acts and observes over raw text until it answers without calling a tool.

    The system prompt tells of the tools as JSON between `<tools>` tags; the model writes
    `<think>…</think>` if it likes, then `<tool_call>{"name": …, "arguments": …}</tool_call>` blocks, which are run in
    their order; their results come back as one message of the user. Text inside `<think>` is never run, and a call that
    cannot be read comes back as an error. Every prompt goes on from the token ids so far, so that the tokens of a run
    are those that its model read and sampled.

    Args:
        server: where answers come from: a model of ours (`AsyncTinyLM()`, `AsyncTokenAPI(…)`, …), what has
            `managed_server(tokenizer=…)` (atroposlib's `ServerManager`), or one API server of atroposlib.
        tools: a `ToolRegistry`, or a list of tools; None for none.
        config: how it works.
        tokenizer: of the model behind a server; the server's own by default.
        execute_tool: runs a call in the place of `tools`, such as in a sandbox.

    Raises:
        InvalidArgument: the tools or the config are none.

    >>> import asyncio
    >>> from lagentlike.llms import AsyncScriptedLLM
    >>> from lagentlike.tools import calculator
    >>> script = ['<tool_call>{"name": "calculator", "arguments": {"expression": "6 * 7"}}</tool_call>', "It is 42."]
    >>> result = asyncio.run(AtroposAgent(AsyncScriptedLLM(script), [calculator]).run("What is 6 * 7?"))
    >>> result.final_response, result.steps[0].tool_results[0].output
    ('It is 42.', '42')
    """

    def __init__(
        self,
        server: Any,
        tools: ToolRegistry | Sequence[Any] | None = None,
        config: AgentConfig | None = None,
        tokenizer: Any = None,
        execute_tool: ExecuteTool | None = None,
    ) -> None:
        if config is not None and not isinstance(config, AgentConfig):
            raise InvalidArgument("config", config, "give an AgentConfig, such as AgentConfig(max_steps=5)")
        self.server = server
        self.tools = tools if isinstance(tools, ToolRegistry) else ToolRegistry(tools or ())
        self.config = config or AgentConfig()
        self.tokenizer = tokenizer
        self.execute_tool = execute_tool or self.tools.execute

    async def run(self, task: str, initial_messages: Messages | None = None) -> AgentResult:
        """Work on a task.

        Args:
            task: what the user says.
            initial_messages: what was said before; a system message at its start takes the place of the agent's own.

        Returns:
            How it ended. A model that fails, and the limit on steps, end it with `success=False`, `error`, and all
            steps and tokens so far.

        Raises:
            InvalidArgument: the task is no text, the server cannot be asked (or not with these parameters), or
                `execute_tool` gave no `ToolResult`.
            BudgetExceeded: a `Budget` around the run is used up.
            EnvironmentFailed, SandboxError: what `execute_tool` works on is broken.
        """
        if not isinstance(task, str):
            raise InvalidArgument("task", task, "say what the agent is to do, as a text")
        before = [dict(message) for message in initial_messages or ()]
        if not before or before[0].get("role") != "system":
            before.insert(0, {"role": "system", "content": system_prompt(self.config, self.tools.get_schemas())})
        async with opened(self.server, self.tokenizer) as answers:
            run = _Run(answers, self.config, [*before, {"role": "user", "content": task}])
            return await run.to_its_end(self._results)

    async def run_single_turn(
        self, messages: Messages, execute_tools: bool = True
    ) -> tuple[str, list[ToolResult], SequenceData | None]:
        """One answer to a conversation, and the results of its tool calls.

        Args:
            messages: the conversation, as it is sent.
            execute_tools: whether to run the calls.

        Returns:
            What the model wrote, the results in the order of the calls, and the tokens; None where there are none.

        Raises:
            LLMError: the model failed; and what `run` raises.
        """
        async with opened(self.server, self.tokenizer) as answers:
            run = _Run(answers, self.config, [dict(message) for message in messages])
            step = await run.step()
        results = await self._results(step.tool_calls) if execute_tools else []
        return step.assistant_message, results, step.sequence_data

    async def _results(self, calls: list[ToolCall]) -> list[ToolResult]:
        """The results of calls, which are made one after the other."""
        results = []
        for number, call in enumerate(calls):
            if number and self.config.tool_delay_s > 0:
                await asyncio.sleep(self.config.tool_delay_s)
            results.append(await self._result(call))
        return results

    async def _result(self, call: ToolCall) -> ToolResult:
        if call.error:
            return ToolResult(False, error=call.error, id=call.id, name=call.name)
        try:
            result = await self.execute_tool(call)
        except (BudgetExceeded, EnvironmentFailed, SandboxError):
            raise
        except Exception as error:  # noqa: BLE001  # whatever a tool raises, the model may try something else
            return ToolResult(False, error=f"{type(error).__name__}: {error}", id=call.id, name=call.name)
        if not isinstance(result, ToolResult):
            raise InvalidArgument("execute_tool", self.execute_tool, f"have it give a ToolResult, and not {result!r}")
        return result


class _Run:
    """One conversation under way."""

    def __init__(self, answers: Answers, config: AgentConfig, messages: list[dict[str, Any]]) -> None:
        self.answers = answers
        self.config = config
        self.prompt = list(messages)
        self.messages = messages
        self.steps: list[AgentStep] = []
        self.ledger = TokenLedger()
        self.usage = Usage()
        self.reason: str | None = None
        self.first: list[int] = []  # what the first answer was asked for with
        self._decode = _texts(answers)

    async def to_its_end(self, results: Callable[[list[ToolCall]], Awaitable[list[ToolResult]]]) -> AgentResult:
        for _ in range(self.config.max_steps):
            try:
                step = await self.step()
            except (BudgetExceeded, InvalidArgument):
                raise
            except Exception as error:  # noqa: BLE001  # however a model fails, what was done so far is kept
                return self._result(f"Generation error: {str(error) or type(error).__name__}")
            if not step.has_tool_calls:
                return self._result()
            step.tool_results = await results(step.tool_calls)
            step.observation = observation(step.tool_results, self.config.tool_responses)
            self.messages.append({"role": "user", "content": step.observation})
        return self._result(f"Reached maximum steps ({self.config.max_steps})")

    async def step(self) -> AgentStep:
        """The next answer."""
        answer = await self.answers.ask(self.messages, self._prompt_ids(), self.config)
        self.ledger.add(answer.tokens, len(self.messages))
        text = self._text(answer)
        self.messages.append({"role": "assistant", "content": text})
        self.usage += answer.usage or Usage(1)
        self.reason = answer.finish_reason
        step = AgentStep(len(self.steps) + 1, text, ToolCall.parse_from_text(text))
        if answer.tokens is not None and self.ledger.segments:
            step.sequence_data = SequenceData.prefix(self.ledger.segments[-1], self._decode)
        self.steps.append(step)
        return step

    def _prompt_ids(self) -> list[int] | None:
        """The conversation as ids that go on from those so far."""
        prompts = self.answers.prompts
        if prompts is None:
            return None
        if self.ledger.segments:
            return prompts.continue_ids(self.ledger.segments[-1].ids, self.messages)
        self.first = prompts.encode_chat(self.messages, add_generation_prompt=True)
        return self.first

    def _text(self, answer: Completion) -> str:
        """What the model sampled, as the next prompt has it."""
        if self.answers.prompts is None or answer.tokens is None:
            return answer.text
        return self.answers.prompts.decode(answer.tokens.said)

    def _result(self, error: str | None = None) -> AgentResult:
        segments = self.ledger.segments
        if not segments and self.first:
            segments = [Segment(self.first, [False] * len(self.first), [0.0] * len(self.first))]
        whole = [SequenceData.of(one, self._decode) for one in segments] if not self.ledger.counts.missing else []
        tokens = sum(len(row.tokens) for row in whole)
        return AgentResult(
            success=error is None,
            final_response=self.steps[-1].assistant_message if self.steps else "",
            steps=self.steps,
            total_tokens=tokens or self.usage.total_tokens,
            error=error,
            metadata={"finish_reason": self.reason, "counts": asdict(self.ledger.counts)},
            trajectory_data=whole[-1] if whole else None,
            earlier=whole[:-1],
            prompt=self.prompt,
        )


def system_prompt(config: AgentConfig, schemas: Sequence[Mapping[str, Any]]) -> str:
    """What the model is told first: who it is, where it works, and which tools there are.

    Args:
        config: its `system_prompt` and `working_dir`.
        schemas: JSON schemas of the tools.
    """
    given = config.system_prompt
    if given is not None and "<tools>" in given:
        return given
    head = _SYSTEM if given is None else given
    if config.working_dir is not None:
        head = f"{head}\n\nThe working directory of your tools is {config.working_dir}"
    told = tool_format("hermes").instruction(schemas)
    if "{tools}" in head:
        return head.replace("{tools}", told)
    return f"{head}\n\n{told}" if told else head


_SYSTEM = (
    "You are a helpful assistant.\n\n"
    "You may think first, between <think> and </think>: what stands there is never run. Results of tools come back "
    "between <tool_response> and </tool_response>. When you are done, answer without a tool call."
)


def _texts(answers: Answers) -> Callable[[list[int]], str]:
    """What makes text of token ids, special tokens included; an empty one where nobody can."""
    prompts = answers.prompts
    if prompts is None:
        return lambda ids: ""
    return lambda ids: prompts.decode(ids, skip_special_tokens=False)
