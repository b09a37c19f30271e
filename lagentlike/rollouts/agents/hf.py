"""A model with tools, run over many conversations at once, whose trajectories are exact to the token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, Literal

from ...actions.executor import AsyncActionExecutor
from ...agents.react import AsyncReAct
from ...agents.workflow import Steps
from ...concurrency import run_in_background
from ...errors import ContextLengthExceeded, InvalidArgument
from ...ledger import Segment
from ...llms.base import AsyncBaseLLM
from ...memory import SessionId
from ...prompts.parsers.tool_call import parse_tool_calls
from ...schema import ActionValidCode, AgentMessage, ToolCall
from ...trajectory import as_parts, FinishReason, text_of, Trajectory
from ..environments import EnvironmentPool
from ..queries import queries_of, Query
from ..result import RunResult
from ..rows import tokenize_trajectories
from ..runner import Chain, rollout, RolloutEvent, stream_rollout
from .backends import open_backend
from .token_agent import PromptBuilder, remembered, TokenAgent

__all__ = ["HFAgent"]


class HFAgent(AsyncReAct):
    """A model with tools, run over many conversations at once, whose trajectories are exact to the token.

    It is an `AsyncReAct`, so it also works wherever an agent does: `await agent("…")`, in a tree, with sessions.

    Args:
        model_name_or_path: `"tiny"` for the embedded model, a Hugging Face directory or name, what a server calls the
            model, or an async model object.
        tools: functions, tools, or an `AsyncActionExecutor` of them.
        template: name of a chat template, such as `"qwen2.5"`; None for the model's own.
        backend_config: `{"backend": "tiny" | "transformers" | "client" | "async_vllm" | "vllm" | "lmdeploy" |
            "sglang", …}` with the backend's options beside it, such as `api_base` and `server` of a server.
        system_prompt: system prompt of conversations that bring none.
        reward_fn: what the trajectories of `run` are worth; see `lagentlike.rollouts.reward`.
        max_model_len: most tokens of a conversation.
        max_turns: most answers of the model in a chain, where `run` does not say.
        tool_parser: finds calls in the model's text, for models that write them in a format of their own.
        environment: pool from which each chain leases an environment.
        name: its name.

    Raises:
        InvalidArgument: an argument is unknown or wrong.

    >>> from lagentlike.tools import calculator
    >>> agent = HFAgent("tiny", tools=[calculator])
    >>> result = agent.run_sync("What is the result of 1 + 1?", max_turns=3)
    >>> result.trajectories[0].final_response
    'The result of 1 + 1 is 2.'
    """

    agent: TokenAgent

    offers_tools: ClassVar[bool] = True
    """Whether the model is offered the tools by their schemas, rather than told of them in the system prompt."""

    def __init__(
        self,
        model_name_or_path: str | AsyncBaseLLM = "tiny",
        tools: Any = (),
        template: str | None = None,
        backend_config: Mapping[str, Any] | None = None,
        *,
        system_prompt: str | None = None,
        reward_fn: Any = None,
        max_model_len: int | None = None,
        max_turns: int = 10,
        tool_parser: Callable[[str], list[ToolCall]] | None = None,
        environment: EnvironmentPool | None = None,
        name: str | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            first = next(iter(unknown))
            cure = f"{type(self).__name__} has no argument {' nor '.join(unknown)}; see its help"
            raise InvalidArgument(first, unknown[first], cure)
        if max_model_len is not None and (
            isinstance(max_model_len, bool) or not isinstance(max_model_len, int) or max_model_len < 1
        ):
            raise InvalidArgument("max_model_len", max_model_len, "give a number of tokens of at least 1")
        llm, prompts = open_backend(model_name_or_path, template, backend_config)
        super().__init__(llm, actions=tools, name=name, max_turn=max_turns)
        self.native = self.offers_tools
        self.agent = TokenAgent(llm, prompts, max_model_len, tool_parser, template=self._system(system_prompt))
        for action in self.actions.values():
            if action.stateful and environment is None:
                raise InvalidArgument(
                    "environment", None, f"the tool {action.name!r} is stateful: give an EnvironmentPool"
                )
        self.reward_fn = reward_fn
        self.environment = environment
        self._last: RunResult | None = None

    @property
    def tools(self) -> list[Any]:
        """Its tools."""
        return self.actions.values()

    async def run(
        self,
        messages: Any,
        max_turns: int | None = None,
        num_chains: int = 1,
        generation_config: Mapping[str, Any] | None = None,
        max_concurrent_chains: int = 64,
        timeout: float | None = None,
        *,
        reward_timeout: float | None = 60.0,
        strict: bool = False,
        on_event: Callable[[RolloutEvent], Any] | None = None,
    ) -> RunResult:
        """Run over conversations, several chains for each; see `lagentlike.rollouts.rollout`.

        Args:
            messages: a conversation (a list of chat messages, `{"messages": […], **metadata}`, or a text), or a list.
            max_turns: most answers of the model in a chain.
            num_chains: chains for each conversation.
            generation_config: generation parameters; chains of one conversation draw with seeds of their own.
            max_concurrent_chains: most chains that run at once.
            timeout: seconds that a chain may take.
            reward_timeout: seconds that a reward may take.
            strict: raise the first failure instead of recording it in its trajectory.
            on_event: called with each `RolloutEvent`.

        Returns:
            The trajectories, in the order of conversations and chains.
        """
        result = await rollout(
            self,
            messages,
            num_chains=num_chains,
            reward=self.reward_fn,
            environment=self.environment,
            max_turns=max_turns,
            generation_config=_named(generation_config),
            max_concurrency=max_concurrent_chains,
            timeout=timeout,
            reward_timeout=reward_timeout,
            strict=strict,
            on_event=on_event,
        )
        self._last = result
        return result

    def run_sync(self, messages: Any, **options: Any) -> RunResult:
        """`run` for code that is not async; it works in Jupyter too, where a loop runs already."""
        return run_in_background(self.run(messages, **options))

    async def stream_run(self, messages: Any, **options: Any) -> AsyncIterator[RolloutEvent]:
        """The events of a run as they happen; options as for `lagentlike.rollouts.rollout`."""
        options = {"reward": self.reward_fn, "environment": self.environment, **options}
        async with aclosing(stream_rollout(self, messages, **options)) as events:  # type: ignore[type-var]
            async for event in events:
                yield event

    async def play(self, chain: Chain) -> FinishReason:
        """Play a chain: the model answers and its tools run, until there is a reason to end."""
        session_id = chain.session_id
        *earlier, incoming = remembered(chain.messages, self.agent.name)
        self._remember(earlier, session_id)
        options = dict(chain.generation_config)
        if self.offers_tools:
            options["tools"] = self.actions.tools()
        if options.get("seed") is not None:
            options["seed"] += 1_000_003 * chain.query + chain.number
        for _ in range(chain.max_turns or self.max_turn):
            try:
                answer = await self.agent(incoming, session_id=session_id, **options)
            except ContextLengthExceeded:
                self._remember([incoming], session_id)  # no call stays without its result
                return "max_model_len"
            chain.tell("answer", answer)
            if not answer.tool_calls:
                return "max_model_len" if answer.finish_reason == "length" else "no_tool_calls"
            results = await self._act(answer, session_id)
            chain.tell("results", results)
            incoming = self._results(results)
            if self._ended(answer, results):
                self._remember([incoming], session_id)
                return "tool_end"
        self._remember([incoming], session_id)
        return "max_turns"

    def steps(self, *message: AgentMessage, session_id: SessionId, **kwargs: Any) -> Steps:
        steps = super().steps(*message, session_id=session_id, **kwargs)
        reply: Any = None
        while True:
            try:
                call = steps.send(reply)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]  # it is what the steps return
            reply = yield call
            if call.unit is self.actions:
                reply = self._results(reply)

    def tokenize_trajectories(
        self, source: Any = None, *, max_length: int | None = None, tensors: Literal["np", "pt"] | None = None
    ) -> dict[str, Any]:
        """Trajectories as padded rows for training; see `lagentlike.rollouts.tokenize_trajectories`.

        Args:
            source: a `RunResult`, trajectories, or conversations (which are tokenized with the chat template, every
                assistant message trained); None for the last run.
            max_length: cut rows that are longer.
            tensors: "np" or "pt"; by default torch where it is imported already.

        Raises:
            InvalidArgument: there was no run yet.
            MissingTokens: the model's server gave no token ids.
        """
        if source is None:
            if self._last is None:
                raise InvalidArgument("source", None, "there was no run yet: await agent.run(…) first")
            source = self._last
        return tokenize_trajectories(self._trajectories(source), max_length=max_length, tensors=tensors)

    def _trajectories(self, source: Any) -> Iterable[Trajectory]:
        if isinstance(source, Trajectory):
            return [source]
        if isinstance(source, Sequence) and source and all(isinstance(item, Trajectory) for item in source):
            return source
        prompts = self.agent.prompts
        if prompts is None:
            raise InvalidArgument("source", source, "this backend has no tokenizer here: give trajectories")
        tools = self.actions.tools() if self.offers_tools else []
        return [_supervised(prompts, query, tools) for query in queries_of(source, answered=True)]

    def _system(self, system_prompt: str | None) -> str | None:
        """The system prompt that its model is given."""
        return system_prompt

    def _ended(self, answer: AgentMessage, results: AgentMessage) -> bool:
        """Whether a tool that was called ends the chain."""
        last = {
            api.schema.openai["function"]["name"]
            for action in self.actions.values()
            if action.status == "terminal"
            for api in action.apis().values()
        }
        pairs = zip(answer.tool_calls or (), results.tool_results or (), strict=True)
        finish = int(ActionValidCode.FINISH)
        return any(
            result.success and (call.name in last or result.metadata.get("valid") == finish) for call, result in pairs
        )

    async def _act(self, answer: AgentMessage, session_id: SessionId) -> AgentMessage:
        actions: AsyncActionExecutor = self.actions  # type: ignore[assignment]  # the class says which
        return await actions(answer, session_id=session_id)

    def _results(self, results: AgentMessage) -> AgentMessage:
        """The results in the form in which the model is shown them."""
        return results

    def _remember(self, messages: list[AgentMessage], session_id: SessionId) -> None:
        if messages:
            assert self.agent.memory is not None
            self.agent.memory.add(messages, session_id=session_id)


def _supervised(prompts: PromptBuilder, query: Query, tools: list[dict[str, Any]]) -> Trajectory:
    """A conversation that nobody sampled here, as a trajectory whose assistant messages are trained."""
    ids, mask = prompts.rows([_as_written(message) for message in query.messages], tools)
    length = len(mask) - next((place for place, trained in enumerate(reversed(mask)) if trained), len(mask))
    segment = Segment(ids[:length], [bool(trained) for trained in mask[:length]], None)
    return Trajectory([as_parts(message) for message in query.messages], [segment], tools, metadata=query.metadata)


def _as_written(message: dict[str, Any]) -> dict[str, Any]:
    """A message without calls that its text holds already, as in a trajectory."""
    if message.get("tool_calls") and parse_tool_calls(text_of(message)).calls:
        return {key: value for key, value in message.items() if key != "tool_calls"}
    return message


_OTHER_NAMES = {"max_tokens": "max_new_tokens", "stop": "stop_words"}


def _named(config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Generation parameters by our names."""
    if not isinstance(config, Mapping):
        return config
    return {_OTHER_NAMES.get(name, name): value for name, value in config.items()}
