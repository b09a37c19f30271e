"""The one source of what tracers are told: what begins and ends, and what it is part of."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import aclosing, closing, contextmanager, suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from ..concurrency import Stopped
from ..schema import (
    ActionReturn,
    ActionStatusCode,
    AgentMessage,
    Completion,
    ModelStatusCode,
    ToolResult,
    Usage,
)

__all__ = [
    "Kind",
    "Remote",
    "Span",
    "Status",
    "Tracer",
    "begin_request",
    "begin_tool",
    "begin_turn",
    "current_span",
    "innermost",
    "note_refused",
    "note_retry",
    "shown",
    "tracers",
    "watched",
    "watched_async",
    "within",
]

logger = logging.getLogger(__name__)

Kind = Literal["turn", "request", "tool"]
Status = Literal["running", "ok", "error", "cancelled", "abandoned"]


class Span:
    """A piece of work with a beginning and an end: a turn of a unit, a model request, or a tool call.

    Attributes:
        kind: `turn`, `request` or `tool`.
        name: the unit's, the model's or the tool's.
        trace_id: 32 hexadecimal digits that all spans below one outermost span share.
        span_id: 16 hexadecimal digits.
        parent_id: the span that this one is part of; None for an outermost one.
        remote: that span, if it is one in another process.
        sampled: whether it is to be kept, which OpenTelemetry's samplers decide and pass on.
        start: when it began, in seconds since 1970.
        seconds: how long it took; None while it goes on.
        status: `running`; then `ok`, `error`, `cancelled`, or `abandoned` for a stream that nobody read to its end.
        error: the type and the text of what went wrong, as `{"type", "message"}`; None where nothing did. The text may
            quote what was said, and is content.
        attributes: what else is known, by kind.
            Turns: `path` (where the unit is in the tree of the outermost one; `""` for that itself, `?` for one that is
            not in it), `unit` (its class), `session_id`; at the end `tokens_in` and `tokens_out`, of all requests
            that were part of it.
            Requests: `model`, `provider`, `server` (`host:port`, for models behind one), `stream`, `batch` (how many
            conversations, for a batch), and those of `max_new_tokens`, `temperature`, `top_p`, `top_k` and `stop_words`
            that are set; then `tokens_in`, `tokens_out`, `cached_tokens`, `reasoning_tokens`, `first_token_seconds`,
            `retries`, `finish_reason`, and `answering_model` where the server names it.
            Tools: `call_id`; at the end `state` (`success`, `api_error`, `args_error`, …).
        content: what went in and, at the end, what came out: `messages` and `reply` of turns, `messages` and `answer`
            of requests, `arguments` and `result` of tools.
        outer: the span that this one is part of, if it is one in this process.
        unit: whose turn it is, or is part of; None outside of turns.

    Content, outer span and unit are let go when all tracers were told of the end.
    """

    __slots__ = (
        "_began",
        "_entered",
        "_path",
        "_token",
        "_tracers",
        "attributes",
        "content",
        "error",
        "kind",
        "name",
        "outer",
        "parent_id",
        "remote",
        "sampled",
        "seconds",
        "span_id",
        "start",
        "status",
        "trace_id",
        "unit",
    )

    def __init__(
        self, kind: Kind, name: str, attributes: dict[str, Any], content: dict[str, Any], unit: Any = None
    ) -> None:
        outer = _current.get()
        inner = outer if isinstance(outer, Span) else None
        self.kind = kind
        self.name = name
        self.trace_id: str = os.urandom(16).hex() if outer is None else outer.trace_id
        self.span_id = os.urandom(8).hex()
        self.parent_id = None if outer is None else outer.span_id
        self.start = time.time()
        self.seconds: float | None = None
        self.status: Status = "running"
        self.error: dict[str, str] | None = None
        self.attributes = attributes
        self.content = content
        self._began = time.perf_counter()
        self.remote = outer if isinstance(outer, Remote) else None
        self.sampled: bool = outer is None or outer.sampled
        self.outer = inner
        self._token: Token[Span | Remote | None] | None = None
        self._entered: list[Any] = []
        self._tracers = tracers
        self.unit: Any = None if inner is None else inner.unit
        self._path: str = "" if inner is None else inner._path
        if unit is not None:
            self._path = "" if self.unit is None else _path(self.unit, self._path, unit)
            self.unit = unit
            attributes["path"] = self._path
        self._tell("begin")

    def __enter__(self) -> Self:
        return self.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)

    def enter(self) -> Self:
        """Make what runs from here to `leave` or `close`, in this context, part of this span."""
        self._token = _current.set(self)
        self._entered = self._tell("enter")
        return self

    def leave(self) -> None:
        """End what `enter` began."""
        token, self._token = self._token, None
        if token is not None:
            self._tell("leave", each=self._entered)
            with suppress(ValueError):  # a coroutine thrown away with its loop ends in a context that is not its own
                _current.reset(token)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Enter it for a block, and leave it again."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def close(self, error: BaseException | None = None) -> None:
        """Leave it and end it, as the end of a `with` block does."""
        self.leave()
        self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        """Say that the work is done, or what ended it; only the first word counts."""
        if self.seconds is not None:
            return
        self.seconds = time.perf_counter() - self._began
        if error is None:
            self.status = "ok" if self.status == "running" else self.status
        elif isinstance(error, GeneratorExit):
            self.status = "abandoned"
        elif isinstance(error, asyncio.CancelledError | Stopped | KeyboardInterrupt):
            self.status = "cancelled"
        else:
            self._failed(type(error).__name__, _text(error))
        self._tell("end")
        self.content = {}  # the contexts of tasks and connections may keep a span for long
        self.outer = self.unit = None

    def plain(self, content: bool = False, after: int = 0) -> dict[str, Any]:
        """The span as a dict of plain data; secrets in it are as they are: see `mask`.

        Args:
            content: what was said, too, and the text of an error.
            after: of its messages, only those after the first so many.
        """
        told: dict[str, Any] = {
            "kind": self.kind,
            "name": self.name,
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent_id": self.parent_id,
            "start": self.start,
            "seconds": self.seconds,
            "status": self.status,
            **self.attributes,
        }
        if self.error is not None:
            told["error"] = dict(self.error) if content else {"type": self.error["type"]}
        if content and self.content:
            said = {**self.content, "messages": self.content["messages"][after:]} if after else self.content
            told["content"] = {name: shown(value) for name, value in said.items()}
        return told

    # What it came to

    def replied(self, message: Any) -> None:
        """Note the reply of a turn."""
        self.content["reply"] = message
        usage = message.usage if isinstance(message, AgentMessage) else None
        if usage is not None and "tokens_in" not in self.attributes:  # its requests were made elsewhere
            self._charge(usage)

    def answered(self, answers: Completion | list[Completion]) -> None:
        """Note the answer to a request, or those to a batch."""
        self.content["answer"] = answers
        attributes = self.attributes
        listed = [answers] if isinstance(answers, Completion) else answers
        usage = sum((one.usage for one in listed if one.usage is not None), Usage())
        self._charge(usage)
        if usage.cached_tokens:
            attributes["cached_tokens"] = usage.cached_tokens
        if usage.reasoning_tokens:
            attributes["reasoning_tokens"] = usage.reasoning_tokens
        if isinstance(answers, Completion) and answers.finish_reason is not None:
            attributes["finish_reason"] = answers.finish_reason
        if listed and listed[-1].model:
            attributes["answering_model"] = listed[-1].model

    def came(self, item: tuple[Any, str, Completion]) -> None:
        """Note a part of a streamed answer."""
        status, text, answer = item
        if status == ModelStatusCode.END:
            self.answered(answer)
            self.end()
            return
        if "first_token_seconds" not in self.attributes:
            self.attributes["first_token_seconds"] = time.perf_counter() - self._began
        self._tell("part", text, answer)

    def returned(self, result: ActionReturn | ToolResult) -> None:
        """Note the result of a tool call."""
        self.content["result"] = result
        if isinstance(result, ActionReturn):
            code = result.state
        else:
            code = ActionStatusCode.SUCCESS if result.success else ActionStatusCode.API_ERROR
        state = self.attributes["state"] = code.name.lower()
        if code != ActionStatusCode.SUCCESS:
            self._failed(state, result.text)

    def _failed(self, kind: str, message: str) -> None:
        self.status, self.error = "error", {"type": kind, "message": message}

    def _charge(self, usage: Usage) -> None:
        """Count tokens, here and in the turns that this is part of."""
        with _guard:
            span: Span | None = self
            while span is not None:
                if span is self or span.kind == "turn":
                    known = span.attributes
                    known["tokens_in"] = known.get("tokens_in", 0) + usage.prompt_tokens
                    known["tokens_out"] = known.get("tokens_out", 0) + usage.completion_tokens
                span = span.outer

    def _tell(self, event: str, *what: Any, each: list[Any] | None = None) -> list[Any]:
        """What the tracers gave back, who are told the same, or each its own."""
        given = []
        for number, tracer in enumerate(self._tracers):
            try:
                given.append(getattr(tracer, event)(self, *what if each is None else (each[number],)))
            except Exception:
                logger.exception("%s.%s failed", type(tracer).__name__, event)
                given.append(None)
        return given


class Remote:
    """A span elsewhere, of which what happens here is part; see `Span`."""

    __slots__ = ("sampled", "span_id", "trace_id")

    def __init__(self, trace_id: str, span_id: str, sampled: bool) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.sampled = sampled


class Tracer:
    """Who is told of spans, in all threads of this process, while it is attached; override what you need.

    It works as a context manager. It hears of the whole of each span that begins while it is attached, in the thread
    that does the work, which waits for it. What it raises is logged, and ends no turn.
    """

    names_spans: ClassVar[bool] = False
    """Whether it gives spans ids of its own, and is told of them before others are."""

    def attach(self) -> Self:
        """Begin to be told."""
        global tracers
        with _guard:
            others = [one for one in tracers if one is not self]
            tracers = (self, *others) if self.names_spans else (*others, self)
        return self

    def detach(self) -> None:
        """Be told of no new spans; twice is no error."""
        global tracers
        with _guard:
            tracers = tuple(one for one in tracers if one is not self)

    def begin(self, span: Span) -> None:
        """A span has begun."""

    def enter(self, span: Span) -> Any:
        """What this thread or task does next is part of a span, up to `leave`, which gets what this returns."""

    def leave(self, span: Span, entered: Any) -> None:
        """What this thread or task does next is not part of a span any more, or not for now."""

    def part(self, span: Span, text: str, answer: Completion) -> None:
        """A part of a streamed request has come: its new text, which may be empty, and the answer so far."""

    def end(self, span: Span) -> None:
        """A span has ended, wherever that was noticed."""

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


tracers: tuple[Tracer, ...] = ()
"""Those that are attached; empty, and then nothing below is called. Read it as `spans.tracers`, for it is replaced."""

_guard = threading.Lock()
os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_guard.release)

_current: ContextVar[Span | Remote | None] = ContextVar("lagentlike_span", default=None)


def current_span() -> Span | None:
    """The span that this code runs in; None outside of all, and where nobody is attached."""
    span = _current.get()
    return span if isinstance(span, Span) else None


def innermost() -> Span | Remote | None:
    """What a span that began here would be part of."""
    return _current.get()


@contextmanager
def within(remote: Remote) -> Iterator[None]:
    """Make what runs in the block part of a span elsewhere."""
    token = _current.set(remote)
    try:
        yield
    finally:
        _current.reset(token)


def begin_turn(unit: Any, session_id: Any, messages: tuple[Any, ...]) -> Span:
    """A turn of a unit begins."""
    attributes = {"path": "", "unit": type(unit).__name__, "session_id": session_id}
    return Span("turn", unit.name, attributes, {"messages": messages}, unit)


def begin_request(llm: Any, messages: Any, params: Mapping[str, Any], *, stream: bool = False) -> Span:
    """A model is asked; `messages` may be a batch of conversations."""
    url = getattr(llm, "url", None)
    host = getattr(url, "host", None)
    attributes: dict[str, Any] = {
        "model": llm.model or type(llm).__name__,
        "provider": type(llm).__name__.removeprefix("Async") if host is None else _provider(host),
        "stream": stream,
    }
    if host is not None:
        attributes["server"] = f"{host}:{url.port}"  # type: ignore[union-attr]  # it has a host
    if isinstance(messages, list | tuple) and messages and isinstance(messages[0], list | tuple):
        attributes["batch"] = len(messages)
    for name in _SAMPLING:
        if params.get(name) not in (None, []):
            attributes[name] = params[name]
    return Span("request", attributes["model"], attributes, {"messages": messages})


def begin_tool(name: str, call_id: str | None, arguments: Any) -> Span:
    """A tool is called."""
    return Span("tool", name, {"call_id": call_id or ""}, {"arguments": arguments})


def note_refused(result: ActionReturn, call_id: str | None) -> None:
    """A call was answered without a tool: there is none of that name, or the arguments do not fit."""
    span = begin_tool(result.type or "", call_id, result.args)
    span.returned(result)
    span.end()


def note_retry() -> None:
    """The request that this code works for is made again."""
    span = current_span()
    if span is not None:
        span.attributes["retries"] = span.attributes.get("retries", 0) + 1


def watched(
    llm: Any, messages: Any, params: Mapping[str, Any], items: Iterator[tuple[Any, str, Completion]]
) -> Generator[Any, None, None]:
    """The parts of an answer, in a span from when the first is asked for."""
    with _streamed(llm, messages, params) as span, closing(items):  # type: ignore[type-var]  # generators close
        while span.seconds is None:
            with span.entered():
                item = next(items, None)
            if item is None:
                return
            span.came(item)
            yield item


async def watched_async(
    llm: Any, messages: Any, params: Mapping[str, Any], items: AsyncIterator[tuple[Any, str, Completion]]
) -> AsyncGenerator[Any, None]:
    """The parts of an answer, as `watched` gives them."""
    with _streamed(llm, messages, params) as span:
        async with aclosing(items):  # type: ignore[type-var]  # generators close
            while span.seconds is None:
                with span.entered():
                    item = await anext(items, None)
                if item is None:
                    return
                span.came(item)
                yield item


@contextmanager
def _streamed(llm: Any, messages: Any, params: Mapping[str, Any]) -> Iterator[Span]:
    """The span of a request whose answer is a stream; the last part ends it, or else the end of the block."""
    span = begin_request(llm, messages, params, stream=True)
    try:
        yield span
    except BaseException as error:
        span.end(error)
        raise
    span.end()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001  # an error that cannot be shown is an error all the same
        return f"(its text cannot be had: {type(broken).__name__})"


def _path(outer: Any, path: str, unit: Any) -> str:
    """Where a unit is in the tree, seen from the unit whose turn this one's is part of."""
    if unit is outer:
        return path
    for name, child in outer.named_children():  # mostly it is one of these
        if child is unit:
            return f"{path}.{name}" if path else name
    for name, below in outer.named_modules():
        if below is unit:
            return f"{path}.{name}" if path else name
    return "?"


def _provider(host: str) -> str:
    """Whose models a server has, by the names of OpenTelemetry's conventions."""
    for end, provider in _PROVIDERS.items():
        if host == end or host.endswith(f".{end}"):
            return provider
    return "openai"  # the format that all servers are spoken to in


_PROVIDERS = {
    "anthropic.com": "anthropic",
    "amazonaws.com": "aws.bedrock",
    "services.ai.azure.com": "azure.ai.inference",
    "models.ai.azure.com": "azure.ai.inference",
    "openai.azure.com": "azure.ai.openai",
    "cohere.com": "cohere",
    "cohere.ai": "cohere",
    "deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "googleapis.com": "gcp.vertex_ai",
    "groq.com": "groq",
    "mistral.ai": "mistral_ai",
    "moonshot.ai": "moonshot_ai",
    "moonshot.cn": "moonshot_ai",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
}
_SAMPLING = ("max_new_tokens", "temperature", "top_p", "top_k", "stop_words")


def shown(value: Any) -> Any:
    """A value of a span's content as plain data, as far as it has such a form."""
    if type(value) in _PLAIN:  # first, for that is what there is most of
        return value
    if isinstance(value, AgentMessage):
        try:
            return value.plain()
        except TypeError:
            return {"sender": value.sender, "content": str(value.content)}
    if isinstance(value, Completion):
        calls = [{"id": one.id, "name": one.name, "arguments": one.arguments} for one in value.tool_calls or ()]
        reasoning = {"reasoning": value.reasoning} if value.reasoning else {}
        return {"text": value.text, **reasoning, **({"tool_calls": calls} if calls else {})}
    if isinstance(value, ActionReturn | ToolResult):
        return value.text
    if isinstance(value, Mapping):
        return {str(name): shown(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


_PLAIN = frozenset({str, int, float, bool, type(None)})
