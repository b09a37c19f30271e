"""Units with a `forward`, composed by attribute assignment: what `nn.Module` is to tensors."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing, suppress
from contextvars import ContextVar, copy_context
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

from .concurrency import stepped
from .errors import ColourError, InvalidArgument, SessionBusy, StateError
from .hooks import Hook, RemovableHandle
from .memory import Memory, SessionId, SessionState, check_session_id
from .memory.state import ALL_SESSIONS
from .registry import create_object
from .schema import AgentMessage, AgentStatusCode, Completion
from .summary import Summary, mermaid, tree

__all__ = [
    "AsyncModule",
    "AsyncStreamingModule",
    "Colour",
    "IncompatibleKeys",
    "Module",
    "StreamingModule",
]

logger = logging.getLogger(__name__)


class Colour(Enum):
    """How a unit is called, and how its `forward` is written."""

    BLOCKING = "a plain function"
    ASYNC = "an `async def`"
    STREAMING = "a generator (a `def` with `yield`)"
    ASYNC_STREAMING = "an async generator (an `async def` with `yield`)"

    @property
    def is_async(self) -> bool:
        return self in (Colour.ASYNC, Colour.ASYNC_STREAMING)

    @property
    def is_streaming(self) -> bool:
        return self in (Colour.STREAMING, Colour.ASYNC_STREAMING)


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and what it could not place."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A unit of a workflow: it has a `forward`, children, hooks and state by session.

    Subclass one of the agents or containers, or this for a unit without memory, and write `__init__` and `forward`.
    Units and `SessionState`s assigned as attributes are in the tree, with or without `super().__init__()`.
    `forward` takes the messages it is called with and `session_id`, and returns an `AgentMessage` or a text.

    Attributes:
        name: the sender of its messages; the class's name unless it is set.
        training: whether `train()` is on: models are asked for token ids and log-probabilities then.
        calls: how many calls it finished.
    """

    colour: ClassVar[Colour] = Colour.BLOCKING
    hook_events: ClassVar[tuple[str, str]] = ("before_agent", "after_agent")

    name: str
    training: bool
    calls: int
    _children: dict[str, Module]
    _states: dict[str, SessionState]
    _hooks: dict[int, Hook]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self.__dict__.update(name=cls.__name__, training=False, calls=0, _children={}, _states={}, _hooks={})
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_forward(cls)

    # Calling

    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """What the unit does with its messages; override it."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, *message, session_id=0)")

    def __call__(self, *message: AgentMessage | str, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Run one turn: hooks, memory, `forward`, memory, hooks.

        Args:
            *message: messages or texts (a text is a user message).
            session_id: an int, a text, or a tuple of those.
            **kwargs: passed on to `forward`, and from there to the model.

        Returns:
            The reply.

        Raises:
            Whatever `forward` or a hook raises; memory is then as it was before the turn in the whole tree, and the
            error's `produced` lists the messages that were given up.
        """
        turn = _Turn(self, message, session_id, kwargs)
        with stepped(turn):
            turn.reply = self.forward(*turn.messages, session_id=session_id, **turn.kwargs)
        return turn.reply

    def map(
        self,
        messages: Iterable[AgentMessage | str | Sequence[AgentMessage | str]],
        session_ids: Iterable[SessionId] | None = None,
        *,
        max_concurrency: int = 8,
        progress: bool | str = False,
        **kwargs: Any,
    ) -> list[AgentMessage | Exception]:
        """Call the unit once for each message, several at once, each in a session of its own.

        Args:
            messages: one message, text, or sequence of these for each call.
            session_ids: the session of each call; 0, 1, 2 … if not given. Calls of one session run in order.
            max_concurrency: most calls under way at once (threads here, tasks in the async form).
            progress: show a progress bar on stderr; a text is its label.
            **kwargs: passed on with each call.

        Returns:
            The replies in the order of the messages; where a call failed, its exception.
        """
        jobs = _jobs(messages, session_ids, max_concurrency)
        with _progress(len(jobs), progress, self.name) as advance, ThreadPoolExecutor(max_concurrency) as pool:

            def call(message: tuple[Any, ...], session_id: SessionId) -> Any:
                try:
                    return _last(self(*message, session_id=session_id, **kwargs))
                except Exception as error:  # a failure is a result: the other calls go on
                    return error
                finally:
                    advance()

            futures = [pool.submit(copy_context().run, call, message, session_id) for message, session_id in jobs]
            return [future.result() for future in futures]

    # The tree

    def __setattr__(self, name: str, value: Any) -> None:
        children, states = self._children, self._states
        if isinstance(value, Module):
            states.pop(name, None)
            children[name] = value
        elif isinstance(value, SessionState):
            children.pop(name, None)
            states[name] = value
        else:
            children.pop(name, None)
            states.pop(name, None)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._children.pop(name, None)
        self._states.pop(name, None)

    def add_module(self, name: str, module: Module | Mapping[str, Any] | None) -> None:
        """Add a child under a name; the same as assigning it as an attribute.

        Raises:
            InvalidArgument: the name is empty, has a dot, or is an attribute already; or it is no unit.
        """
        if not isinstance(name, str) or not name or "." in name:
            raise InvalidArgument("name", name, "give a non-empty text without dots")
        if hasattr(self, name) and name not in self._children:
            raise InvalidArgument("name", name, f"{type(self).__name__} already has an attribute of that name")
        module = create_object(module, "module")
        if module is not None and not isinstance(module, Module):
            raise InvalidArgument("module", module, "give an agent, an executor or another unit, or None")
        setattr(self, name, module)

    add_agent = add_module

    def children(self) -> Iterator[Module]:
        """The units assigned to this one, each once."""
        return (child for _, child in self.named_children())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The units assigned to this one with their names, each once."""
        seen = set()
        for name, child in self._children.items():
            if id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def modules(self) -> Iterator[Module]:
        """This unit and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_modules(
        self, memo: set[int] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This unit and all below it with their paths, each once (unless `remove_duplicate` is off)."""
        memo = set() if memo is None else memo
        if remove_duplicate:
            if id(self) in memo:
                return
            memo.add(id(self))
        yield prefix, self
        for name, child in self._children.items():
            yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def get_submodule(self, target: str) -> Module:
        """The unit at a path such as `writer.agent`; the empty path is this unit.

        Raises:
            AttributeError: there is none; the message names the missing piece and what there is.
        """
        module = self
        for piece in target.split(".") if target else []:
            if piece not in module._children:
                raise AttributeError(
                    f"get_submodule({target!r}): {type(module).__name__} has no child {piece!r}; "
                    f"its children are {list(module._children)}"
                )
            module = module._children[piece]
        return module

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` with every unit, children first, this one last."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Have models give token ids and log-probabilities with their answers, in the whole tree."""
        if not isinstance(mode, bool):
            raise InvalidArgument("mode", mode, "give True or False")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Take `train()` back."""
        return self.train(False)

    # Hooks

    def register_hook(self, hook: Hook | Mapping[str, Any]) -> RemovableHandle:
        """Add a hook; its handle's `remove()` takes it off again."""
        hook = create_object(hook, "hook")
        if not isinstance(hook, Hook):
            raise InvalidArgument("hook", hook, "give a Hook; for functions there is register_forward_hook")
        key = max(self._hooks, default=-1) + 1
        self._hooks[key] = hook
        return RemovableHandle(self._hooks, key)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(unit, messages)` before each `forward`; it may be async in async units.

        Args:
            hook: gets the tuple of messages; what it returns (a message, a tuple, None) takes their place.
            prepend: run it before the hooks that are there.
            with_kwargs: call `hook(unit, messages, kwargs)`, `kwargs` holding `session_id` and what the call was given
                by name; it may return `(messages, kwargs)`.
        """
        return self._register_function(_FunctionHook(before=_callable(hook), with_kwargs=with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(unit, messages, reply)` after each `forward`; what it returns, if not None, is the reply.

        Args:
            hook: gets the messages that `forward` got, and the reply. It may be async in async units.
            prepend: run it before the hooks that are there.
            with_kwargs: call `hook(unit, messages, kwargs, reply)`.
        """
        return self._register_function(_FunctionHook(after=_callable(hook), with_kwargs=with_kwargs), prepend)

    def _register_function(self, hook: _FunctionHook, prepend: bool) -> RemovableHandle:
        handle = self.register_hook(hook)
        if prepend:
            self._hooks = {handle._key: hook, **self._hooks}
            handle._registry = self._hooks
        return handle

    # State

    def named_states(self) -> Iterator[tuple[str, SessionState]]:
        """Everything in the tree that is kept by session, with its key in `state_dict`."""
        seen = set()
        for path, module in self.named_modules():
            for name, state in module._states.items():
                if id(state) not in seen:
                    seen.add(id(state))
                    yield f"{path}.{name}" if path else name, state

    def session_ids(self) -> list[SessionId]:
        """The sessions that anything in the tree remembers, in the order they first spoke here."""
        return list(dict.fromkeys(session_id for _, state in self.named_states() for session_id in state.session_ids()))

    def state_dict(self, session_id: SessionId = 0) -> dict[str, Any]:
        """What the tree remembers of a session: a flat dict such as `{"memory": […], "writer.memory": […]}`.

        Args:
            session_id: the session; `"all"` gives `{"version": 1, "sessions": [{"session_id", "state"}, …]}`.

        Returns:
            Plain data that `json.dump` writes and `load_state_dict` takes.

        Raises:
            StateError: something has no JSON form; the message names its key and place.
        """
        if session_id == ALL_SESSIONS:
            sessions = [
                {"session_id": _id_to_json(one), "state": self.state_dict(one)} for one in self.session_ids()
            ]
            return {"version": _VERSION, "sessions": sessions}
        check_session_id(session_id)
        return {key: _dumped(key, state, session_id) for key, state in self.named_states()}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], session_id: SessionId = 0, strict: bool = True
    ) -> IncompatibleKeys:
        """Take over what `state_dict` gave, whole or not at all.

        Args:
            state_dict: a session's state, or that of all sessions.
            session_id: the session that gets it; a state of all sessions is loaded with `"all"`, and replaces them.
            strict: missing and unexpected keys are an error; otherwise what fits is loaded.

        Returns:
            `(missing_keys, unexpected_keys)`.

        Raises:
            StateError: it does not fit; nothing was changed.
        """
        if not isinstance(state_dict, Mapping):
            raise StateError(f"a state dict is a dict, got {type(state_dict).__name__}")
        if session_id != ALL_SESSIONS:
            plan, keys = self._plan(state_dict, check_session_id(session_id), strict)
            _carry_out(plan)
            return keys
        plan = []
        missing: dict[str, None] = {}
        unexpected: dict[str, None] = {}
        loaded = _sessions_of(state_dict)
        for one, state in loaded:
            steps, keys = self._plan(state, one, strict)
            plan += steps
            missing |= dict.fromkeys(keys.missing_keys)
            unexpected |= dict.fromkeys(keys.unexpected_keys)
        kept = {one for one, _ in loaded}
        for one in self.session_ids():
            if one not in kept:
                self.reset(one, recursive=True)
        _carry_out(plan)
        return IncompatibleKeys(list(missing), list(unexpected))

    def _plan(
        self, state_dict: Mapping[str, Any], session_id: SessionId, strict: bool
    ) -> tuple[list[tuple[SessionState, SessionId, Any]], IncompatibleKeys]:
        """Check a session's state whole; what is then to be put where."""
        states = dict(self.named_states())
        keys = IncompatibleKeys(
            [key for key in states if key not in state_dict], [str(key) for key in state_dict if key not in states]
        )
        if strict and any(keys):
            raise StateError(
                f"the state does not fit {type(self).__name__}: missing keys {keys.missing_keys}, "
                f"unexpected keys {keys.unexpected_keys}; load with strict=False to take over what fits"
            )
        plan = []
        for key, state in states.items():
            if key in state_dict:
                try:
                    plan.append((state, session_id, state.parse(state_dict[key])))
                except StateError as error:
                    raise StateError(f"{key}: {error}") from error
        return plan, keys

    def save(self, path: str | os.PathLike[str], session_id: SessionId = ALL_SESSIONS) -> None:
        """Write the state to a JSON file, whole or not at all.

        Raises:
            StateError: something has no JSON form.
        """
        state = self.state_dict(session_id)
        if session_id != ALL_SESSIONS:
            one = {"session_id": _id_to_json(session_id), "state": state}
            state = {"version": _VERSION, "sessions": [one]}
        _write_atomically(Path(path), json.dumps(state, indent=1, allow_nan=False))

    def load(self, path: str | os.PathLike[str], strict: bool = True) -> IncompatibleKeys:
        """Take over a file that `save` wrote; other sessions are forgotten.

        Raises:
            StateError: the file is no state, or does not fit; nothing was changed.
        """
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise StateError(f"{os.fspath(path)!r} holds no state: {error}") from error
        return self.load_state_dict(state, ALL_SESSIONS, strict)

    def reset(
        self, session_id: SessionId = 0, keypath: str | None = None, recursive: bool = False
    ) -> None:
        """Forget a session.

        Args:
            session_id: the session, or `"all"`.
            keypath: do it in the unit at this path instead of in this one.
            recursive: do it in everything below as well.
        """
        unit = self if keypath is None else self.get_submodule(keypath)
        if session_id != ALL_SESSIONS:
            check_session_id(session_id)
        for module in unit.modules() if recursive else [unit]:
            for state in module._states.values():
                for one in state.session_ids() if session_id == ALL_SESSIONS else [session_id]:
                    state.reset(one)

    def fork(self, session_id: SessionId, new_session_id: SessionId) -> None:
        """Let a new session begin where another one is, in the whole tree; they go their own ways from there.

        It costs the same however long the session is.

        Raises:
            InvalidArgument: the session is unknown, or the new one exists.
        """
        check_session_id(session_id)
        check_session_id(new_session_id)
        known = self.session_ids()
        if session_id not in known:
            raise InvalidArgument("session_id", session_id, f"nothing is remembered of it; sessions are {known[:10]}")
        if new_session_id in known:
            raise InvalidArgument("new_session_id", new_session_id, "this session exists; reset it first")
        for _, state in self.named_states():
            state.fork(session_id, new_session_id)

    # Looking at it

    def summary(self) -> Summary:
        """The tree with classes, models, tools, sessions and usage; no model is called."""
        return Summary(self)

    def to_mermaid(self) -> str:
        """The tree as a Mermaid flowchart, for READMEs and notebooks."""
        return mermaid(self)

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses of this unit."""
        return ""

    def __repr__(self) -> str:
        return tree(self)

    # What a turn needs to know of the unit

    def _open_memory(self, session_id: SessionId) -> Memory | None:
        """The memory that a turn of the session goes into; None for units without one."""
        return None

    def _as_reply(self, reply: Any) -> AgentMessage:
        """What `forward` returned, as a message.

        Raises:
            InvalidArgument: it is neither a message nor a text.
        """
        if isinstance(reply, AgentMessage):
            if type(reply.content) is Completion:
                completion = reply.content
                reply.content = completion.text
                for field, value in completion.extras().items():
                    if value is not None and getattr(reply, field) is None:
                        setattr(reply, field, value)
            return reply
        if type(reply) is Completion:
            return AgentMessage(sender=self.name, content=reply.text, **reply.extras())
        if isinstance(reply, str):
            return AgentMessage(sender=self.name, content=reply)
        if inspect.isawaitable(reply):
            if inspect.iscoroutine(reply):
                reply.close()
            raise ColourError(
                f"forward of {type(self).__name__} returned a coroutine: await it in an async class, or call a blocking unit"
            )
        raise InvalidArgument(
            f"the reply of {type(self).__name__}.forward", reply, "return an AgentMessage or a text"
        )


class AsyncModule(Module):
    """A unit called with `await`; its `forward` is an `async def`."""

    colour = Colour.ASYNC

    async def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """What the unit does with its messages; override it."""
        raise NotImplementedError(f"{type(self).__name__} must define async forward(self, *message, session_id=0)")

    async def __call__(self, *message: AgentMessage | str, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Run one turn: hooks, memory, `forward`, memory, hooks; see `Module.__call__`."""
        async with _Turn(self, message, session_id, kwargs) as turn:
            turn.reply = await self.forward(*turn.messages, session_id=session_id, **turn.kwargs)
        return turn.reply

    async def map(  # type: ignore[override]  # the async form of the same call
        self,
        messages: Iterable[AgentMessage | str | Sequence[AgentMessage | str]],
        session_ids: Iterable[SessionId] | None = None,
        *,
        max_concurrency: int = 64,
        progress: bool | str = False,
        **kwargs: Any,
    ) -> list[AgentMessage | Exception]:
        """Call the unit once for each message, several at once; see `Module.map`."""
        return await _map_async(self, messages, session_ids, max_concurrency, progress, kwargs)


class StreamingModule(Module):
    """A unit whose call is an iterator of messages; its `forward` is a generator."""

    colour = Colour.STREAMING

    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Iterator[Any]:
        """What the unit does with its messages; override it."""
        raise NotImplementedError(f"{type(self).__name__} must define a generator forward(self, *message, session_id=0)")

    def __call__(
        self, *message: AgentMessage | str, session_id: SessionId = 0, **kwargs: Any
    ) -> Iterator[AgentMessage]:
        """Run one turn, giving out its messages as they come; see `Module.__call__`.

        Yields:
            Messages whose `content` is the answer so far, with `stream_state` STREAM_ING; at last the reply, with END.
            The turn is in memory when the reply comes. Leaving the iterator before that takes the turn back.
        """
        turn = _Turn(self, message, session_id, kwargs)
        with stepped(turn), closing(self.forward(*turn.messages, session_id=session_id, **turn.kwargs)) as parts:  # type: ignore[type-var]
            while (part := turn.running(next, parts, None)) is not None:
                yield from turn.passing(part)
        assert turn.reply is not None
        yield turn.reply


class AsyncStreamingModule(AsyncModule):
    """A unit whose call is an async iterator of messages; its `forward` is an async generator."""

    colour = Colour.ASYNC_STREAMING

    async def forward(  # type: ignore[override,misc]  # the streaming form of the same call
        self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """What the unit does with its messages; override it."""
        raise NotImplementedError(f"{type(self).__name__} must define an async generator forward")
        yield

    async def __call__(  # type: ignore[override,misc]  # the streaming form of the same call
        self, *message: AgentMessage | str, session_id: SessionId = 0, **kwargs: Any
    ) -> AsyncIterator[AgentMessage]:
        """Run one turn, giving out its messages as they come; see `StreamingModule.__call__`."""
        async with _Turn(self, message, session_id, kwargs) as turn:
            async with aclosing(self.forward(*turn.messages, session_id=session_id, **turn.kwargs)) as parts:
                while (part := await turn.running_async(anext, parts, None)) is not None:
                    for item in turn.passing(part):
                        yield item
        assert turn.reply is not None
        yield turn.reply


_enclosing: ContextVar[_Turn | None] = ContextVar("lagentlike_turn", default=None)


class _Turn:
    """One call of a unit, from the messages it is given to the reply it makes: the protocol of all four colours.

    It waits for its place in the session, runs the hooks before, remembers the messages; around `forward`, nothing;
    then it remembers the reply and runs the hooks after. If anything fails, memory goes back to where it was, in this
    unit and in every unit whose turn ran inside this one.
    """

    __slots__ = ("_held", "_journal", "_mark", "_memory", "_parent", "kwargs", "messages", "reply", "session_id", "unit")

    def __init__(self, unit: Module, messages: tuple[Any, ...], session_id: SessionId, kwargs: dict[str, Any]) -> None:
        self.unit = unit
        self.messages = messages
        self.session_id = session_id
        self.kwargs = kwargs
        self.reply: Any = None
        self._memory: Memory | None = None
        self._parent = _enclosing.get()
        self._journal: list[tuple[Module, Memory, Any, Any]] = []

    async def __aenter__(self) -> _Turn:
        unit = self.unit
        check_session_id(self.session_id)
        self.messages = tuple([_as_message(item) for item in self.messages])
        if not self.messages:
            raise InvalidArgument("message", (), f"call {type(unit).__name__} with at least one message or text")
        self._memory = memory = await self._open()
        if memory is not None:
            self._mark = memory.mark()
        try:
            if unit._hooks:
                await self._within(self._before())
            if memory is not None:
                for message in self.messages:
                    memory.append(_received(message, unit.name))
        except BaseException as error:
            self._give_up(error)
            raise
        if not unit.colour.is_streaming:
            _enclosing.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.unit.colour.is_streaming:
            _enclosing.set(self._parent)
        if error is not None:
            self._give_up(error)
            return
        try:
            self._conclude()
            if self.unit._hooks:
                await self._within(self._after())
        except BaseException as failure:
            self._give_up(failure)
            raise
        self._keep()

    def running(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a piece of a streaming `forward` as part of this turn; what its consumer does in between is not."""
        token = _enclosing.set(self)
        try:
            return function(*args)
        finally:
            _enclosing.reset(token)

    async def running_async(self, function: Callable[..., Any], *args: Any) -> Any:
        token = _enclosing.set(self)
        try:
            return await function(*args)
        finally:
            _enclosing.reset(token)

    def passing(self, part: Any) -> Iterator[AgentMessage]:
        """What to give out now that `forward` yielded a part: only the last one of all may be the reply."""
        if not isinstance(part, AgentMessage):
            part = self.unit._as_reply(part)
            part.stream_state = AgentStatusCode.STREAM_ING
        held, self.reply = self.reply, part
        if held is not None and held.stream_state == AgentStatusCode.END:
            yield held.model_copy(update={"stream_state": AgentStatusCode.STREAM_ING})
        if part.stream_state != AgentStatusCode.END:
            yield part

    async def _open(self) -> Memory | None:
        """The session's memory, once it is this turn's place in the line."""
        unit = self.unit
        colour = unit.colour
        while True:
            memory = unit._open_memory(self.session_id)
            if memory is None:
                return None
            try:
                if colour.is_async:
                    await memory.turns.acquire_async(streaming=colour.is_streaming)
                else:
                    memory.turns.acquire(streaming=colour.is_streaming)
            except SessionBusy as error:
                raise SessionBusy(f"{type(unit).__name__}, session {self.session_id!r}: {error}") from None
            if unit._open_memory(self.session_id) is memory:
                return memory
            memory.turns.release()  # the session was reset while this turn waited

    async def _within(self, work: Any) -> None:
        token = _enclosing.set(self)
        try:
            await work
        finally:
            _enclosing.reset(token)

    async def _before(self) -> None:
        before = self.unit.hook_events[0]
        for hook in list(self.unit._hooks.values()):
            if isinstance(hook, _FunctionHook):
                await hook.run_before(self)
                continue
            given: Any = self.messages if before == "before_agent" else self.messages[0]
            returned = await _settled(getattr(hook, before)(self.unit, given, self.session_id))
            if returned is not None:
                self.messages = _as_messages(returned)

    async def _after(self) -> None:
        after = self.unit.hook_events[1]
        self.reply = self.reply.clone()
        for hook in list(self.unit._hooks.values()):
            if isinstance(hook, _FunctionHook):
                returned = await hook.run_after(self)
            else:
                returned = await _settled(getattr(hook, after)(self.unit, self.reply, self.session_id))
            if returned is not None:
                self.reply = self.unit._as_reply(returned)

    def _conclude(self) -> None:
        """Make the reply a message, and remember it."""
        reply = self.unit._as_reply(self.reply)
        if reply.stream_state == AgentStatusCode.STREAM_ING:
            reply = reply.model_copy(update={"stream_state": AgentStatusCode.END})
        self.reply = reply
        if self._memory is not None:
            self._memory.append(reply.clone())

    def _keep(self) -> None:
        """Let the turn stand, unless the turn that it runs in is taken back."""
        self.unit.calls += 1
        memory = self._memory
        if self._parent is not None:
            self._parent._journal += self._journal
            if memory is not None:
                self._parent._journal.append((self.unit, memory, self._mark, memory.mark()))
        if memory is not None:
            memory.turns.release()

    def _give_up(self, error: BaseException) -> None:
        """Take back what this turn, and the turns inside it, put into memories."""
        produced = []
        for unit, memory, before, after in reversed(self._journal):
            if memory.mark() == after:
                produced[:0] = memory.rewind(before)
            else:
                logger.warning("%s went on in this session meanwhile: its part of a failed turn stays", unit.name)
        produced += getattr(error, "produced", ())
        if isinstance(self.reply, AgentMessage):
            produced.append(self.reply)
        with suppress(AttributeError, TypeError):  # an exception that takes no attributes goes without
            error.produced = produced  # type: ignore[attr-defined]
        if self._memory is not None:
            self._memory.rewind(self._mark)
            self._memory.turns.release()


class _FunctionHook(Hook):
    """A plain function as a hook, called as torch calls forward hooks."""

    def __init__(
        self,
        before: Callable[..., Any] | None = None,
        after: Callable[..., Any] | None = None,
        with_kwargs: bool = False,
    ) -> None:
        self.before = before
        self.after = after
        self.with_kwargs = with_kwargs

    async def run_before(self, turn: _Turn) -> None:
        if self.before is None:
            return
        if not self.with_kwargs:
            returned = await _settled(self.before(turn.unit, turn.messages))
        else:
            kwargs = {"session_id": turn.session_id, **turn.kwargs}
            returned = await _settled(self.before(turn.unit, turn.messages, kwargs))
            if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict):
                returned, kwargs = returned
            if kwargs.pop("session_id", turn.session_id) != turn.session_id:
                raise InvalidArgument("session_id", kwargs, "a hook cannot move a turn to another session")
            turn.kwargs = kwargs
        if returned is not None:
            turn.messages = _as_messages(returned)

    async def run_after(self, turn: _Turn) -> Any:
        if self.after is None:
            return None
        if not self.with_kwargs:
            return await _settled(self.after(turn.unit, turn.messages, turn.reply))
        kwargs = {"session_id": turn.session_id, **turn.kwargs}
        return await _settled(self.after(turn.unit, turn.messages, kwargs, turn.reply))


_VERSION = 1


async def _settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _as_message(item: Any) -> AgentMessage:
    """The unit's own copy of a message it is called with."""
    if isinstance(item, AgentMessage):
        return item.clone()
    if isinstance(item, str):
        return AgentMessage(content=str.__str__(item))
    raise InvalidArgument("message", item, "call a unit with an AgentMessage or a text")


def _received(message: AgentMessage, name: str) -> AgentMessage:
    """The copy that the memory keeps; one from a namesake is marked, so that it is not taken for an own reply."""
    copy = message.clone()
    if copy.sender == name:
        copy.receiver = name
    return copy


def _as_messages(returned: Any) -> tuple[AgentMessage, ...]:
    """What a hook returned, as the messages that `forward` gets."""
    if isinstance(returned, AgentMessage | str):
        return (_as_message(returned),)
    if isinstance(returned, list | tuple):
        return tuple(_as_message(item) for item in returned)
    raise InvalidArgument("the value a hook returned", returned, "return a message, a list of messages, or None")


def _callable(hook: Any) -> Callable[..., Any]:
    if not callable(hook):
        raise InvalidArgument("hook", hook, "give a function")
    return hook  # type: ignore[no-any-return]


def _check_forward(cls: type[Module]) -> None:
    """Refuse a `forward` that the class cannot call, when the class is defined."""
    forward = inspect.unwrap(cls.forward)
    written = Colour.BLOCKING
    if inspect.isasyncgenfunction(forward):
        written = Colour.ASYNC_STREAMING
    elif inspect.iscoroutinefunction(forward):
        written = Colour.ASYNC
    elif inspect.isgeneratorfunction(forward):
        written = Colour.STREAMING
    if written is not cls.colour and not (cls.colour.is_streaming and written is Colour.BLOCKING):
        raise ColourError(
            f"{cls.__name__}.forward is {written.value}, but {cls.__name__} derives from a class whose forward is "
            f"{cls.colour.value}: derive from {_BASES[written]}, or change forward"
        )
    parameters = inspect.signature(forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if "session_id" not in parameters and not takes_any:
        raise InvalidArgument(
            f"{cls.__name__}.forward", str(inspect.signature(forward)), "it must take session_id, such as session_id=0"
        )


_BASES = {
    Colour.BLOCKING: "Agent",
    Colour.ASYNC: "AsyncAgent",
    Colour.STREAMING: "StreamingAgent",
    Colour.ASYNC_STREAMING: "AsyncStreamingAgent",
}


async def _map_async(
    unit: Any, messages: Any, session_ids: Any, max_concurrency: int, progress: bool | str, kwargs: dict[str, Any]
) -> list[AgentMessage | Exception]:
    jobs = _jobs(messages, session_ids, max_concurrency)
    slots = asyncio.Semaphore(max_concurrency)
    with _progress(len(jobs), progress, unit.name) as advance:

        async def call(message: tuple[Any, ...], session_id: SessionId) -> Any:
            async with slots:
                try:
                    return await _last_async(unit(*message, session_id=session_id, **kwargs))
                except Exception as error:  # a failure is a result: the other calls go on
                    return error
                finally:
                    advance()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call(message, session_id)) for message, session_id in jobs]
    return [task.result() for task in tasks]


def _jobs(messages: Any, session_ids: Any, max_concurrency: Any) -> list[tuple[tuple[Any, ...], SessionId]]:
    if isinstance(messages, str | AgentMessage):
        raise InvalidArgument("messages", messages, "give a list with one message for each call")
    if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1:
        raise InvalidArgument("max_concurrency", max_concurrency, "give a whole number of at least 1")
    calls = [tuple(item) if isinstance(item, list | tuple) else (item,) for item in messages]
    ids = list(range(len(calls))) if session_ids is None else list(session_ids)
    if len(ids) != len(calls):
        raise InvalidArgument("session_ids", ids, f"give one for each of the {len(calls)} messages")
    for session_id in ids:
        check_session_id(session_id)
    return list(zip(calls, ids, strict=True))


def _last(reply: Any) -> Any:
    """The reply of a call: what it returned, or the last message of its stream."""
    if isinstance(reply, AgentMessage):
        return reply
    last = None
    for last in reply:
        continue
    return last


async def _last_async(reply: Any) -> Any:
    if inspect.isawaitable(reply):
        return await reply
    last = None
    async for last in reply:
        continue
    return last


class _progress:  # noqa: N801  # reads as a function at its call sites
    """A tqdm bar, or nothing."""

    def __init__(self, total: int, shown: bool | str, label: str) -> None:
        self._bar: Any = None
        if shown:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=shown if isinstance(shown, str) else label, unit="call")

    def __enter__(self) -> Callable[[], None]:
        return (lambda: None) if self._bar is None else self._advance

    def _advance(self) -> None:
        self._bar.update()

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _dumped(key: str, state: SessionState, session_id: SessionId) -> Any:
    try:
        return state.dump(session_id)
    except StateError as error:
        raise StateError(f"{key}: {error}") from error


def _carry_out(plan: Iterable[tuple[SessionState, SessionId, Any]]) -> None:
    for state, session_id, parsed in plan:
        state.restore(session_id, parsed)


def _sessions_of(state: Mapping[str, Any]) -> list[tuple[SessionId, Mapping[str, Any]]]:
    """The sessions of a state of all sessions, checked."""
    if state.get("version") != _VERSION:
        raise StateError(f"version is {state.get('version')!r}, this package reads version {_VERSION}")
    sessions = state.get("sessions")
    if not isinstance(sessions, list):
        raise StateError(f"'sessions' is {type(sessions).__name__}, expected a list")
    found = []
    for index, item in enumerate(sessions):
        if not isinstance(item, Mapping) or set(item) != {"session_id", "state"} or not isinstance(item["state"], Mapping):
            raise StateError(f"sessions[{index}] is not of the form {{'session_id': …, 'state': {{…}}}}")
        try:
            session_id = check_session_id(_id_from_json(item["session_id"]))
        except (InvalidArgument, RecursionError) as error:
            raise StateError(f"sessions[{index}]: {error}") from error
        found.append((session_id, item["state"]))
    if len({session_id for session_id, _ in found}) != len(found):
        raise StateError("a session is there twice")
    return found


def _id_to_json(session_id: SessionId) -> Any:
    return [_id_to_json(part) for part in session_id] if isinstance(session_id, tuple) else session_id


def _id_from_json(value: Any) -> Any:
    return tuple(_id_from_json(part) for part in value) if isinstance(value, list) else value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _write_atomically(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


