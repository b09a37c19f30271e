"""Units with a `forward`, composed by attribute assignment: what `nn.Module` is to tensors."""

from __future__ import annotations

import inspect
import json
import os
import tempfile
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TYPE_CHECKING

from .colour import check_forward, Colour, overridable
from .concurrency import stepped
from .errors import ColourError, InvalidArgument, SessionBusy, StateError
from .hooks import Hook, RemovableHandle
from .memory import check_session_id, Memory, MemoryManager, SessionId, SessionState
from .memory.memory import Mark
from .memory.state import ALL_SESSIONS, id_from_json, id_to_json
from .names import check_attribute, check_names, KINDS
from .registry import create_object
from .schema import AgentMessage, Completion
from .summary import mermaid, Summary, tree
from .tracing import spans
from .turn import FunctionHook, outermost_turn, TracedTurn, Turn

if TYPE_CHECKING:
    from .memory import Keeper, SessionStore

__all__ = [
    "AsyncModule",
    "AsyncStreamingModule",
    "IncompatibleKeys",
    "Module",
    "StreamingModule",
]


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
        name: the sender of its messages; the class's name unless it is set, on the object or in the class.
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
    _hooks: dict[object, Hook]
    _keeper: Keeper | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        name = getattr(cls, "name", None)
        name = name if isinstance(name, str) else cls.__name__
        self.__dict__.update(name=name, training=False, calls=0, _children={}, _states={}, _hooks={})
        self._equip()
        return self

    def _equip(self) -> None:
        """Give a new unit what it has before, or without, `super().__init__()`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_names(cls)
        check_forward(cls)

    # Calling

    @overridable
    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """What the unit does with its messages; override it."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, *message, session_id=0)")

    def __call__(self, *message: AgentMessage | str, session_id: SessionId = 0, **kwargs: Any) -> AgentMessage:
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
        turn = (TracedTurn if spans.tracers else Turn)(self, message, session_id, kwargs)
        with stepped(turn):
            turn.reply = self.forward(*turn.messages, session_id=session_id, **turn.kwargs)
        reply: AgentMessage = turn.reply
        return reply

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
        from .mapping import map_blocking  # what only this needs

        return map_blocking(self, messages, session_ids, max_concurrency, progress, kwargs)

    # The tree

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in KINDS:
            check_attribute(self, name, value)
        elif isinstance(value, _COLLECTIONS):
            _warn_of_units_in(value, self, name)
        if isinstance(value, Module) and any(unit is self for unit in value.modules()):
            cure = "it holds the unit that it would be in, and a tree has no circles: keep a weakref.ref to it instead"
            raise InvalidArgument(f"{type(self).__name__}.{name}", value, cure)
        object.__setattr__(self, name, value)
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
        """Call `fn` with every unit once, children first, this one last."""
        for module in _bottom_up(self, set()):
            fn(module)
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
            raise InvalidArgument("hook", hook, "give a Hook object; for functions there is register_forward_hook")
        key = object()  # like no other, so that a handle never takes off a later hook
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
        takes = ["unit", "messages", "kwargs"] if with_kwargs else ["unit", "messages"]
        return _register(self, FunctionHook(before=_callable(hook, takes), with_kwargs=with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(unit, messages, reply)` after each `forward`; what it returns, if not None, is the reply.

        Args:
            hook: gets the messages that `forward` got, and the reply. It may be async in async units.
            prepend: run it before the hooks that are there.
            with_kwargs: call `hook(unit, messages, kwargs, reply)`.
        """
        takes = ["unit", "messages", "kwargs", "reply"] if with_kwargs else ["unit", "messages", "reply"]
        return _register(self, FunctionHook(after=_callable(hook, takes), with_kwargs=with_kwargs), prepend)

    def _register_all(self, hooks: Any) -> None:
        """Add what an argument `hooks` gave: a hook, several, or None."""
        if hooks is not None:
            several = isinstance(hooks, Iterable) and not isinstance(hooks, Hook | str | Mapping)
            for hook in hooks if several else [hooks]:
                self.register_hook(hook)

    # State

    def named_states(self) -> Iterator[tuple[str, SessionState]]:
        """Everything in the tree that is kept by session, with its path."""
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
            Plain data that `json.dump` writes and `load_state_dict` takes. While a turn is under way, memories are as
            they were before it.

        Raises:
            StateError: something has no JSON form; the message names its key and place.
            SessionBusy: a turn of the session is under way, and something else than a memory may be half changed.
        """
        if session_id != ALL_SESSIONS:
            return _dumped(_standing(self, check_session_id(session_id)), session_id)
        sessions = []
        for one in self.session_ids():
            states = _standing(self, one)
            if any(past.knows(one) for _, _, past in states):
                sessions.append({"session_id": id_to_json(one), "state": _dumped(states, one)})
        return {"version": _VERSION, "sessions": sessions}

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
            SessionBusy: a turn of a session that it changes is under way; nothing was changed.
        """
        if not isinstance(state_dict, Mapping):
            raise StateError(f"a state dict is a dict, got {type(state_dict).__name__}")
        if session_id != ALL_SESSIONS:
            plan, keys = _plan(self, state_dict, check_session_id(session_id), strict)
            _carry_out(plan, [])
            return keys
        plan = []
        missing: dict[str, None] = {}
        unexpected: dict[str, None] = {}
        loaded = _sessions_of(state_dict)
        for one, state in loaded:
            steps, keys = _plan(self, state, one, strict)
            plan += steps
            missing |= dict.fromkeys(keys.missing_keys)
            unexpected |= dict.fromkeys(keys.unexpected_keys)
        kept = {one for one, _ in loaded}
        _carry_out(
            plan, [(state, one) for _, state in self.named_states() for one in state.session_ids() if one not in kept]
        )
        return IncompatibleKeys(list(missing), list(unexpected))

    def save(self, path: str | os.PathLike[str], session_id: SessionId = ALL_SESSIONS) -> None:
        """Write the state to a JSON file, whole or not at all.

        Raises:
            StateError: something has no JSON form.
        """
        state = self.state_dict(session_id)
        if session_id != ALL_SESSIONS:
            one = {"session_id": id_to_json(session_id), "state": state}
            state = {"version": _VERSION, "sessions": [one]}
        try:
            text = json.dumps(state, indent=1, allow_nan=False)
        except RecursionError:
            raise StateError("the state is nested too deeply to be written: flatten what the messages hold") from None
        _write_atomically(Path(path), text)

    def load(self, path: str | os.PathLike[str], strict: bool = True) -> IncompatibleKeys:
        """Take over a file that `save` wrote; other sessions are forgotten.

        Raises:
            StateError: the file is no state, or does not fit; nothing was changed.
            SessionBusy: a turn of a session that it changes is under way; nothing was changed.
        """
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise StateError(f"{os.fspath(path)!r} holds no state: {error}") from error
        return self.load_state_dict(state, ALL_SESSIONS, strict)

    def reset(self, session_id: SessionId = 0, keypath: str | None = None, recursive: bool = False) -> None:
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

        It costs the same however long the session is. While a turn is under way, memories are as they were before it.

        Raises:
            InvalidArgument: the session is unknown, or the new one exists.
            SessionBusy: a turn of the session is under way, and something else than a memory may be half changed.
        """
        check_session_id(session_id)
        check_session_id(new_session_id)
        states, known = _standing(self, session_id), self.session_ids()
        if not any(past.knows(session_id) for _, _, past in states):
            raise InvalidArgument("session_id", session_id, f"nothing is remembered of it; sessions are {known[:10]}")
        if new_session_id in known:
            raise InvalidArgument("new_session_id", new_session_id, "this session exists; reset it first")
        for _, state, past in states:
            past.fork(session_id, new_session_id)
            if isinstance(state, MemoryManager) and isinstance(past, MemoryManager):
                state.adopt(past, new_session_id)

    def keep(
        self,
        store: SessionStore | str | os.PathLike[str],
        *,
        max_sessions: int = 10_000,
        ttl: float | None = None,
        on_evict: Callable[[SessionId], None] | None = None,
    ) -> Keeper:
        """Keep the sessions of the whole tree in a store: each turn is there before its reply is returned.

        A turn begins where the store has its session, whoever went on in it; a turn that cannot be kept is taken back.
        It is meant for the outermost unit: its turns write what all units below did.

        Args:
            store: a store, the path of an SQLite file, or an address such as `postgresql://…` or `redis://…`.
            max_sessions: most sessions in memory; those not used for longest leave it until they are used again.
            ttl: seconds after which a session that is not used leaves the memory.
            on_evict: called with the id of each session that leaves the memory.

        Returns:
            What does it; `keeper.store` is the store.

        Raises:
            InvalidArgument: the unit has no memory, which its turns need to wait for each other.
        """
        from .memory.address import open_store  # what only this needs
        from .memory.keeper import Keeper

        if not isinstance(self._states.get("memory"), MemoryManager):
            raise InvalidArgument(
                "self", self, "only a unit with a memory can be kept, such as an agent or a Sequential"
            )
        self._keeper = keeper = Keeper(self, open_store(store), max_sessions, ttl, on_evict)
        return keeper

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

    def _is_careful(self) -> bool:
        """Whether `forward` is `careful` with messages."""
        return getattr(type(self).forward, "careful", False) and "forward" not in self.__dict__

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
                f"forward of {type(self).__name__} returned a coroutine: "
                "await it in an async class, or call a blocking unit"
            )
        raise InvalidArgument(f"the reply of {type(self).__name__}.forward", reply, "return an AgentMessage or a text")


class AsyncModule(Module):
    """A unit called with `await`; its `forward` is an `async def`."""

    colour = Colour.ASYNC

    @overridable
    async def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """What the unit does with its messages; override it."""
        raise NotImplementedError(f"{type(self).__name__} must define async forward(self, *message, session_id=0)")

    async def __call__(  # type: ignore[override]  # the async form of the same call
        self, *message: AgentMessage | str, session_id: SessionId = 0, **kwargs: Any
    ) -> AgentMessage:
        """Run one turn: hooks, memory, `forward`, memory, hooks; see `Module.__call__`."""
        async with (TracedTurn if spans.tracers else Turn)(self, message, session_id, kwargs) as turn:
            turn.reply = await self.forward(*turn.messages, session_id=session_id, **turn.kwargs)
        reply: AgentMessage = turn.reply
        return reply

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
        from .mapping import map_async  # what only this needs

        return await map_async(self, messages, session_ids, max_concurrency, progress, kwargs)


class StreamingModule(Module):
    """A unit whose call is an iterator of messages; its `forward` is a generator."""

    colour = Colour.STREAMING

    @overridable
    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Iterator[Any]:
        """What the unit does with its messages; override it."""
        raise NotImplementedError(
            f"{type(self).__name__} must define a generator forward(self, *message, session_id=0)"
        )

    def __call__(  # type: ignore[override]  # the streaming form of the same call
        self, *message: AgentMessage | str, session_id: SessionId = 0, **kwargs: Any
    ) -> Iterator[AgentMessage]:
        """Run one turn, giving out its messages as they come; see `Module.__call__`.

        Yields:
            Messages whose `content` is the answer so far, with `stream_state` STREAM_ING; at last the reply, with END.
            The turn is in memory when the reply comes. Leaving the iterator before that takes the turn back.
        """
        turn = (TracedTurn if spans.tracers else Turn)(self, message, session_id, kwargs)
        with (
            stepped(turn),
            closing(_stream(self, self.forward(*turn.messages, session_id=session_id, **turn.kwargs))) as parts,
        ):
            while True:
                token = turn.resume()
                try:
                    part = next(parts, _END)
                finally:
                    turn.pause(token)
                if part is _END:
                    break
                yield from turn.passing(part)
        assert turn.reply is not None
        yield turn.reply


class AsyncStreamingModule(AsyncModule):
    """A unit whose call is an async iterator of messages; its `forward` is an async generator."""

    colour = Colour.ASYNC_STREAMING

    @overridable
    async def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> AsyncIterator[Any]:
        """What the unit does with its messages; override it."""
        raise NotImplementedError(f"{type(self).__name__} must define an async generator forward")
        yield

    async def __call__(  # type: ignore[override]  # the streaming form of the same call
        self, *message: AgentMessage | str, session_id: SessionId = 0, **kwargs: Any
    ) -> AsyncIterator[AgentMessage]:
        """Run one turn, giving out its messages as they come; see `StreamingModule.__call__`."""
        async with (
            (TracedTurn if spans.tracers else Turn)(self, message, session_id, kwargs) as turn,
            aclosing(_stream_async(self, self.forward(*turn.messages, session_id=session_id, **turn.kwargs))) as parts,
        ):
            while True:
                token = turn.resume()
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    break
                finally:
                    turn.pause(token)
                for item in turn.passing(part):
                    yield item
        assert turn.reply is not None
        yield turn.reply


def _bottom_up(module: Module, seen: set[int]) -> Iterator[Module]:
    """The unit and all below it, each once and after all below it."""
    if id(module) not in seen:
        seen.add(id(module))
        for child in module.children():
            yield from _bottom_up(child, seen)
        yield module


def _stream(unit: Module, parts: Any) -> Generator[Any, None, None]:
    """What a streaming `forward` gave, as a generator."""
    if isinstance(parts, Generator):
        return parts
    if isinstance(parts, Iterator):
        return (part for part in parts)
    raise _no_stream(unit, parts)


def _stream_async(unit: Module, parts: Any) -> AsyncGenerator[Any, None]:
    """What an async streaming `forward` gave, as an async generator."""
    if isinstance(parts, AsyncGenerator):
        return parts
    if isinstance(parts, AsyncIterator):
        return (part async for part in parts)
    raise _no_stream(unit, parts)


def _no_stream(unit: Module, parts: Any) -> InvalidArgument:
    if inspect.iscoroutine(parts):
        parts.close()
    return InvalidArgument(f"the reply of {type(unit).__name__}.forward", parts, f"write it as {unit.colour.value}")


_VERSION = 1
_END = object()


def _register(unit: Module, hook: FunctionHook, prepend: bool) -> RemovableHandle:
    earlier = list(unit._hooks)
    handle = unit.register_hook(hook)
    for key in earlier if prepend else ():
        unit._hooks[key] = unit._hooks.pop(key)  # to the end, in the dict that the handles know
    return handle


def _callable(hook: Any, takes: Sequence[str]) -> Callable[..., Any]:
    """A function hook that takes what it will be called with."""
    if isinstance(hook, Hook):
        raise InvalidArgument("hook", hook, "give a function; for a Hook there is register_hook")
    if not callable(hook):
        raise InvalidArgument("hook", hook, "give a function")
    try:
        signature = inspect.signature(hook, follow_wrapped=False)  # what is called, not what a decorator is put on
    except ValueError:  # written in C, and says nothing
        return hook  # type: ignore[no-any-return]
    try:
        signature.bind(*takes)
    except TypeError:
        raise InvalidArgument("hook", hook, f"it takes {signature}, and must take ({', '.join(takes)})") from None
    return hook  # type: ignore[no-any-return]


_COLLECTIONS = (list, tuple, dict)


def _warn_of_units_in(collection: Any, unit: Module, attribute: str) -> None:
    """Say that a unit which remembers something is where the tree does not reach, if the first item is one."""
    first = next(iter(collection.values() if isinstance(collection, dict) else collection), None)
    if isinstance(first, Module) and any(first.named_states()) and all(one is not first for one in unit.modules()):
        warnings.warn(
            f"{type(unit).__name__}.{attribute} is a {type(collection).__name__} of units, and what is in it is not in "
            "the tree: repr, state_dict and fork do not see it; make it an AgentList or an AgentDict",
            stacklevel=3,
        )


_States = list[tuple[str, SessionState, SessionState]]
"""The states of a tree: their paths, they themselves, and what a session is read from."""


def _standing(unit: Module, session_id: SessionId) -> _States:
    """The states of a tree as they stand between turns, all at one moment.

    For who asks from inside a turn, the turns that ended inside it are there.
    """
    reader, states = outermost_turn(), list(unit.named_states())
    memories = [state for _, state in states if isinstance(state, MemoryManager)]
    for path, state in states:
        if isinstance(state, MemoryManager) or not state.persistent or not state.knows(session_id):
            continue
        if any(memory.is_changing(session_id, reader) for memory in memories):
            raise SessionBusy(
                f"a turn of session {session_id!r} is under way, and {path!r} ({type(state).__name__}) may be half "
                "changed: wait for the turn"
            )
    for _ in range(1000):  # until no turn ends between the first look at a memory and the last one
        marks = [memory.standing(session_id, reader) for memory in memories]
        if all(map(_same, marks, [memory.standing(session_id, reader) for memory in memories])):
            pasts = {id(memory): memory.as_of(session_id, mark) for memory, mark in zip(memories, marks, strict=True)}
            return [(path, state, pasts.get(id(state), state)) for path, state in states]
    raise SessionBusy(f"turns of session {session_id!r} end faster than it can be read: wait for them")


def _same(mark: Mark | None, other: Mark | None) -> bool:
    return mark is other or (mark is not None and other is not None and mark[0] is other[0] and mark[1] == other[1])


def _dumped(states: _States, session_id: SessionId) -> dict[str, Any]:
    dumped: dict[str, Any] = {}
    for key, _, past in states:
        if past.persistent:
            try:
                value = past.dump(session_id)
            except StateError as error:
                raise StateError(f"{key}: {error}") from error
            dumped |= {_beside(key) + inner: item for inner, item in value.items()} if past.spreads else {key: value}
    return dumped


def _gathered(states: Mapping[str, SessionState], state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state dict in which the keys of each state that spreads are gathered under its own."""
    spread = sorted((key for key, state in states.items() if state.spreads), key=len, reverse=True)
    if not spread:
        return state_dict
    gathered: dict[str, Any] = {}
    for key, value in state_dict.items():
        home = None if key in states else next((one for one in spread if str(key).startswith(_beside(one))), None)
        if home is None:
            gathered[key] = value
        else:
            gathered.setdefault(home, {})[str(key).removeprefix(_beside(home))] = value
    return gathered


def _beside(key: str) -> str:
    """What the keys of the unit that holds a state begin with."""
    path, dot, _ = key.rpartition(".")
    return path + dot


def _plan(
    unit: Module, state_dict: Mapping[str, Any], session_id: SessionId, strict: bool
) -> tuple[list[tuple[SessionState, SessionId, Any]], IncompatibleKeys]:
    """Check a session's state whole; what is then to be put where."""
    states = {key: state for key, state in unit.named_states() if state.persistent}
    state_dict = _gathered(states, state_dict)
    keys = IncompatibleKeys(
        [key for key in states if key not in state_dict], [str(key) for key in state_dict if key not in states]
    )
    if strict and any(keys):
        cure = "load with strict=False to take over what fits"
        if set(state_dict) == {"version", "sessions"}:
            cure = f"it is that of all sessions, load it with session_id={ALL_SESSIONS!r}"
        raise StateError(
            f"the state does not fit {type(unit).__name__}: missing keys {keys.missing_keys}, "
            f"unexpected keys {keys.unexpected_keys}; {cure}"
        )
    plan = [(state, session_id, None) for _, state in unit.named_states() if not state.persistent]
    for key, state in states.items():
        if key in state_dict:
            try:
                plan.append((state, session_id, state.parse(state_dict[key])))
            except StateError as error:
                raise StateError(f"{key}: {error}") from error
    return plan, keys


def _carry_out(
    restored: Sequence[tuple[SessionState, SessionId, Any]], forgotten: Sequence[tuple[SessionState, SessionId]]
) -> None:
    """Put new values in place, all or none."""
    reader, changed = outermost_turn(), [*forgotten, *((state, one) for state, one, _ in restored)]
    for state, one in changed:
        if isinstance(state, MemoryManager) and state.is_changing(one, reader):
            raise SessionBusy(f"a turn of session {one!r} is under way, and its end would go into what is loaded: wait")
    undo = [state.snapshot(one) for state, one in changed]
    try:
        for state, session_id in forgotten:
            state.reset(session_id)
        for state, session_id, parsed in restored:
            state.restore(session_id, parsed)
    except BaseException:
        for put_back in undo:
            put_back()
        raise


def _sessions_of(state: Mapping[str, Any]) -> list[tuple[SessionId, Mapping[str, Any]]]:
    """The sessions of a state of all sessions, checked."""
    if state.get("version") != _VERSION:
        raise StateError(f"version is {state.get('version')!r}, this package reads version {_VERSION}")
    sessions = state.get("sessions")
    if not isinstance(sessions, list):
        raise StateError(f"'sessions' is {type(sessions).__name__}, expected a list")
    found = []
    for index, item in enumerate(sessions):
        if (
            not isinstance(item, Mapping)
            or set(item) != {"session_id", "state"}
            or not isinstance(item["state"], Mapping)
        ):
            raise StateError(f"sessions[{index}] is not of the form {{'session_id': …, 'state': {{…}}}}")
        try:
            session_id = check_session_id(id_from_json(item["session_id"]))
        except (InvalidArgument, RecursionError) as error:
            raise StateError(f"sessions[{index}]: {error}") from error
        found.append((session_id, item["state"]))
    if len({session_id for session_id, _ in found}) != len(found):
        raise StateError("a session is there twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _write_atomically(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise
