"""One call of a unit, from the messages it is given to the reply it makes: the protocol of all four colours."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from operator import itemgetter
from types import TracebackType
from typing import Any, TYPE_CHECKING

from .colour import Colour
from .concurrency import NESTED, run_in_background
from .errors import InvalidArgument, SessionBusy
from .hooks import Hook
from .memory import check_session_id, Memory, SessionId
from .memory.memory import Mark, Outermost
from .schema import AgentMessage, AgentStatusCode, unchecked_message
from .tracing import spans

if TYPE_CHECKING:
    from .module import Module

__all__ = ["FunctionHook", "TracedTurn", "Turn", "lend", "outermost_turn", "recorded", "take_back"]

logger = logging.getLogger(__name__)

_ASYNC = Colour.ASYNC
_STREAMING, _END = AgentStatusCode.STREAM_ING, AgentStatusCode.END  # looked at for each part of a stream

_enclosing: ContextVar[Turn | None] = ContextVar("lagentlike_turn", default=None)


class Turn:
    """One call of a unit, as a context manager around `forward`.

    It waits for its place in the session, runs the hooks before, remembers the messages; around `forward`, nothing;
    then it remembers the reply and runs the hooks after. If anything fails, memory goes back to where it was, in this
    unit and in every unit whose turn ran inside this one.
    """

    __slots__ = (
        "_careful",
        "_failed",
        "_given",
        "_journal",
        "_keeper",
        "_lends",
        "_lent",
        "_mark",
        "_memory",
        "_outermost",
        "_over",
        "_own",
        "_parent",
        "kwargs",
        "messages",
        "reply",
        "session_id",
        "unit",
    )

    def __init__(self, unit: Module, messages: tuple[Any, ...], session_id: SessionId, kwargs: dict[str, Any]) -> None:
        self.unit = unit
        self.messages = messages
        self.session_id = session_id
        self.kwargs = kwargs
        self.reply: Any = None
        self._careful = unit._is_careful()
        self._given: dict[str, Any] | None = None  # what `reply` was, where a consumer was given that very message
        self._memory: Memory | None = None
        self._mark = _NOWHERE
        self._own = False  # whether nobody edits the messages, so that memory has the very ones
        self._over: bool = False
        self._failed = False
        self._parent = parent = _enclosing.get()
        self._lends = False  # whether the next turn inside gets its messages uncopied
        self._lent = False  # whether this one did
        if parent is None or parent._over:
            self._outermost: Outermost = Outermost()
        else:
            self._outermost = parent._outermost
            self._lent, parent._lends = parent._lends, False
        self._journal: list[_Entry] = []
        self._keeper = unit._keeper

    async def __aenter__(self) -> Turn:
        unit = self.unit
        if self._parent is None or self._parent.session_id is not self.session_id:
            check_session_id(self.session_id)
        careful = self._own = self._careful and not unit._hooks
        if not (self._lent and careful):
            self.messages = tuple([_as_message(item) for item in self.messages])
        if not self.messages:
            raise InvalidArgument("message", (), f"call {type(unit).__name__} with at least one message or text")
        memory = unit._open_memory(self.session_id)
        if memory is not None and not memory.turns.take(_runner(unit.colour)):
            memory = await self._queue(memory)
        if memory is not None and self._keeper is not None:
            memory = await self._fetched(memory)
        if memory is not None:
            self._memory = memory
            self._mark = memory.begin(self._outermost)
        try:
            if unit._hooks:
                await self._within(self._before())
            if memory is not None:
                for message in self.messages:
                    memory.append(message if careful and message.sender != unit.name else _received(message, unit.name))
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
            if self._keeper is not None:
                await self._waited(self._keeper.write(self.session_id))
        except BaseException as failure:
            self._give_up(failure)
            raise
        self._keep()

    def resume(self) -> Token[Turn | None]:
        """Make what runs from here to `pause` part of this turn: a piece of a streaming `forward`, not its consumer."""
        if self._memory is not None:
            self._memory.turns.run(_runner(self.unit.colour))
        return _enclosing.set(self)

    def pause(self, token: Token[Turn | None]) -> None:
        """End what `resume` began."""
        _enclosing.reset(token)
        if self._memory is not None:
            self._memory.turns.rest()

    def passing(self, part: Any) -> list[AgentMessage]:
        """What to give out now that `forward` yielded a part: only the last one of all may be the reply."""
        if not isinstance(part, AgentMessage):
            part = self.unit._as_reply(part)
            part.stream_state = _STREAMING
        held, self.reply = self.reply, part
        state = part.__dict__
        if self._careful and _is_plain_part(state) and (held is None or held.stream_state != _END):
            self._given = state.copy()
            return [part]
        self._given = None
        given = []
        if held is not None and held.stream_state == _END and not _goes_on(held):
            given.append(_as_part(held))
        if _goes_on(part):  # given out once, whether or not a unit inside already did
            shown = _as_part(part)
            if held is None or _as_part(held) != shown:
                given.append(shown)
        elif part.stream_state != _END:
            given.append(_as_part(part))
        return given

    async def _queue(self, memory: Memory) -> Memory | None:
        """Wait for the session's turn that is under way; the session's memory then."""
        while True:
            await self._wait(memory)
            opened = self.unit._open_memory(self.session_id)
            if opened is memory:
                return memory
            memory.turns.release()  # the session was reset while this turn waited
            if opened is None or opened.turns.take(_runner(self.unit.colour)):
                return opened
            memory = opened

    async def _fetched(self, memory: Memory) -> Memory | None:
        """Have the session as its store has it; its memory then, which nobody else writes to."""
        assert self._keeper is not None
        self._keeper.take(self.session_id)
        try:
            try:
                await self._waited(self._keeper.fetch(self.session_id))
            except BaseException:
                memory.turns.release()
                raise
            opened = self.unit._open_memory(self.session_id)
            if opened is None or opened is memory:
                return opened
            memory.turns.release()
            return opened if opened.turns.take(_runner(self.unit.colour)) else await self._queue(opened)
        except BaseException:
            self._keeper.leave(self.session_id)
            raise

    async def _waited(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for a store as this colour does."""
        if self.unit.colour.is_async:
            await work
        else:
            run_in_background(work)

    async def _wait(self, memory: Memory) -> None:
        try:
            self._refuse_nesting(memory)
            if self.unit.colour.is_async:
                await memory.turns.acquire_async()
            else:
                memory.turns.acquire()
        except SessionBusy as error:
            raise SessionBusy(f"{type(self.unit).__name__}, session {self.session_id!r}: {error}") from None

    def _refuse_nesting(self, memory: Memory) -> None:
        """Refuse to wait for a turn that this one runs in, be it in another task or thread."""
        outer = self._parent
        while outer is not None:
            if outer._memory is memory and not outer._over:
                raise SessionBusy(NESTED)
            outer = outer._parent

    async def _within(self, work: Any) -> None:
        token = _enclosing.set(self)
        try:
            await work
        finally:
            _enclosing.reset(token)

    async def _before(self) -> None:
        before = self.unit.hook_events[0]
        for hook in list(self.unit._hooks.values()):
            if isinstance(hook, FunctionHook):
                await hook.run_before(self)
                continue
            given: Any = self.messages if before == "before_agent" else self.messages[0]
            returned = await _settled(getattr(hook, before)(self.unit, given, self.session_id))
            if returned is not None:
                self.messages = _as_messages(returned)

    async def _after(self) -> None:
        after = self.unit.hook_events[1]
        for hook in list(self.unit._hooks.values()):
            if isinstance(hook, FunctionHook):
                returned = await hook.run_after(self)
            else:
                returned = await _settled(getattr(hook, after)(self.unit, self.reply, self.session_id))
            if returned is not None:
                self.reply = self.unit._as_reply(returned)

    def _conclude(self) -> None:
        """Make the reply a message, and remember it."""
        reply = self.unit._as_reply(self.reply if self._given is None else self._pristine())
        if reply.stream_state == _STREAMING:
            reply = reply.model_copy(update={"stream_state": _END})
        self.reply = reply if self._lent and self._own else reply.clone()
        if self._memory is not None:
            self._memory.append(reply if self._careful else reply.clone())

    def _pristine(self) -> Any:
        """The reply as `forward` made it, whatever became of the message that a consumer was given."""
        if self._given is not None:
            self.reply = self.reply.twin()
            self.reply.__dict__.update(self._given)
            self._given = None
        return self.reply

    def _keep(self) -> None:
        """Let the turn stand, unless the turn that it runs in is taken back, or was already."""
        state = self.unit.__dict__
        state["calls"] += 1  # in one step, which past __setattr__ is safe between threads
        memory, parent = self._memory, self._parent
        journal = _record.get() if parent is None else parent._journal
        if parent is not None and parent._failed:
            self._take_back()
        elif journal is not None:
            journal += self._journal
            after = self._mark if memory is None else memory.mark()
            journal.append((self.unit, self.reply, memory, self._mark, after))
        self._end()

    def _give_up(self, error: BaseException) -> None:
        """Take the turn back, and leave with the error what was produced."""
        produced = self._take_back()
        produced += getattr(error, "produced", ())
        if isinstance(self.reply, AgentMessage):
            produced.append(self._pristine())
        with suppress(AttributeError, TypeError):  # an exception that takes no attributes goes without
            error.produced = produced  # type: ignore[attr-defined]
        self._end()

    def _end(self) -> None:
        """Let others see what the turn did, all at once if it runs in no other one, and have their turn.

        It lets go of everything: the contexts of tasks and connections may keep it for long.
        """
        self._over = True
        memory, parent = self._memory, self._parent
        if memory is not None:
            memory.running = None
            if self._keeper is not None:
                self._keeper.leave(self.session_id)
        if parent is None or parent._outermost is not self._outermost:
            self._outermost.is_over = True
            if memory is not None:
                memory.before = None
            for _, _, inner, _, _ in self._journal:
                if inner is not None:
                    inner.before = None
        self._memory, self._mark, self.messages = None, _NOWHERE, ()
        self._journal.clear()
        if memory is not None:
            memory.turns.release()

    def _take_back(self) -> list[AgentMessage]:
        """Take out of memories what this turn and the turns inside it put there; what those inside did."""
        self._failed = True
        given_up = take_back(self._journal)
        if self._memory is not None:
            self._memory.rewind(self._mark)
        return given_up


class TracedTurn(Turn):
    """A turn that tracers are told of."""

    __slots__ = ("_span",)

    async def __aenter__(self) -> Turn:
        self._span = span = spans.begin_turn(self.unit, self.session_id, self.messages)
        span.enter()
        try:
            await super().__aenter__()
        except BaseException as error:
            span.leave()
            span.end(error)
            raise
        if self.unit.colour.is_streaming:
            span.leave()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        span = self._span
        if self.unit.colour.is_streaming:
            span.enter()
        try:
            await super().__aexit__(kind, error, trace)
        except BaseException as failure:
            error = failure
            raise
        finally:
            if error is None:
                span.replied(self.reply)
            span.leave()
            span.end(error)

    def resume(self) -> Token[Turn | None]:
        self._span.enter()
        return super().resume()

    def pause(self, token: Token[Turn | None]) -> None:
        self._span.leave()
        super().pause(token)


_Entry = tuple["Module", AgentMessage, Memory | None, Mark, Mark]
"""A turn that stands, inside another one or on record: its unit; its reply; and, if it has a memory, that and the span
of it that holds the turn."""

_NOWHERE: Mark = ([], 0)
_record: ContextVar[list[_Entry] | None] = ContextVar("lagentlike_record", default=None)


@contextmanager
def recorded() -> Iterator[list[_Entry]]:
    """A record of the turns that stand after its block and ran in no other ones, for `take_back`."""
    record: list[_Entry] = []
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


def take_back(record: Sequence[_Entry]) -> list[AgentMessage]:
    """Take out of memories what turns put there, the latest first; what those turns did.

    Where a session went on since, that turn stays.
    """
    given_up: list[AgentMessage] = []
    for unit, reply, memory, before, after in reversed(record):
        if memory is None:
            given_up.insert(0, reply)
        elif memory.stands_at(after):
            given_up[:0] = memory.rewind(before)
        else:
            logger.warning("%s went on in this session meanwhile: its part of a failed turn stays", unit.name)
    return given_up


def lend(unit: Module) -> None:
    """Let the next call from the `forward` of a careful unit, which this is, go without copies.

    The unit called is given the very messages, and gives its very reply: both are in memories, and nobody edits them.
    """
    turn = _enclosing.get()
    if turn is not None and turn.unit is unit and turn._own:
        turn._lends = True


def outermost_turn() -> Outermost | None:
    """The outermost of the turns that this code runs in."""
    turn = _enclosing.get()
    return None if turn is None or turn._over else turn._outermost


class FunctionHook(Hook):
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

    async def run_before(self, turn: Turn) -> None:
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

    async def run_after(self, turn: Turn) -> Any:
        if self.after is None:
            return None
        if not self.with_kwargs:
            return await _settled(self.after(turn.unit, turn.messages, turn.reply))
        kwargs = {"session_id": turn.session_id, **turn.kwargs}
        return await _settled(self.after(turn.unit, turn.messages, kwargs, turn.reply))


def _runner(colour: Colour) -> object:
    """What this code runs in: a thread, by its id, or a task.

    None for an async call, which never loses its context: by that it is known what would wait for itself.
    """
    if colour is _ASYNC:
        return None
    if colour.is_async:
        return asyncio.current_task(asyncio.get_running_loop())  # in a third of the time it takes without the loop
    return threading.get_ident()


async def _settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _goes_on(message: AgentMessage) -> bool:
    """Whether more is bound to follow a message, so that it is given out before that, while the tools run."""
    return bool(message.tool_calls or message.tool_results)


def _is_plain_part(state: dict[str, Any]) -> bool:
    """Whether a message with these fields is a part of an answer with nothing in it that could be edited in place."""
    return type(state["content"]) is str and _besides(state) == _PLAIN_PART


_besides = itemgetter("stream_state", "formatted", "extra_info", "tool_calls", "tool_results", "usage")
_PLAIN_PART = (_STREAMING, None, None, None, None, None)


def _as_part(message: AgentMessage) -> AgentMessage:
    """A copy of a message as a part of an answer."""
    part = message.clone()
    if part.stream_state != _STREAMING:
        part.stream_state = _STREAMING
    return part


def _as_message(item: Any) -> AgentMessage:
    """The unit's own copy of a message it is called with."""
    if isinstance(item, AgentMessage):
        return item.clone()
    if isinstance(item, str):
        return unchecked_message(content=str.__str__(item))
    raise InvalidArgument("message", item, "call a unit with AgentMessages or texts, the rest by name: session_id=…")


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
    if isinstance(returned, list | tuple) and returned:
        return tuple(_as_message(item) for item in returned)
    raise InvalidArgument("the value a hook returned", returned, "return a message, a list of messages, or None")
