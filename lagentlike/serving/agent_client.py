"""An agent that runs behind another server, as an agent of this program."""

from __future__ import annotations

import asyncio
import atexit
import base64
import hashlib
import json
import logging
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet, WeakValueDictionary

import orjson
from yarl import URL

from ..agents import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent
from ..concurrency import background, iterate_in_background, run_in_background
from ..errors import (
    BadResponse,
    ConnectFailed,
    InvalidArgument,
    LagentlikeError,
    LLMError,
    StateError,
    StreamTruncated,
)
from ..hooks import Hook
from ..llms.refusals import refusal_in_stream
from ..llms.sse import EventParser
from ..llms.transport import Request, Transport, TransportOptions
from ..memory import Memory, SessionId, SessionState
from ..memory.memory import Mark, Outermost
from ..schema import AgentMessage
from .agent_protocol import turn_within
from .error_wire import error_from_wire
from .message_stream import message_from, MessageDecoder

__all__ = [
    "AsyncHTTPAgentClient",
    "AsyncStreamingHTTPAgentClient",
    "HTTPAgentClient",
    "StreamingHTTPAgentClient",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class HTTPAgentClient(Agent):
    """An agent behind an `AgentServer`, called like any other: it nests, has sessions, state, and raises its errors.

    Its state is that of the agent over there: `state_dict`, `load_state_dict`, `reset`, `fork` and `session_ids`, of
    this one and of every tree that it is in, reach it by blocking requests (from async code, call them in
    `asyncio.to_thread`).

    A turn is atomic: if it fails here, or a turn that it runs in, or if nobody waits for its answer any more, the
    server is told to take it back. Where that is not possible, because the server was restarted, somebody else went on
    in the session, or nobody can be reached, a warning is logged, and the turn stands over there.

    A request that gets no answer is made again; the server knows it by its key, and makes no turn twice.

    Args:
        host, port: where the server is.
        timeout: seconds that a turn may take; None for no limit.
        url: the server's address, instead of host and port.
        token: the server's token.
        retry: how often a request that failed in a way that may pass is made again.
        name, description, hooks: as for `Agent`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8090,
        timeout: float | None = 600.0,
        *,
        url: str | None = None,
        token: str | None = None,
        retry: int = 2,
        name: str | None = None,
        description: str | None = None,
        hooks: Hook | Mapping[str, Any] | Sequence[Hook | Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(name=name, description=description, hooks=hooks)
        self.memory = None  # it is over there
        if "//" in host:
            raise InvalidArgument("host", host, f"give a whole address by its name: url={host!r}")
        self.url = url.rstrip("/") if url is not None else f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._remote = _Remote(self.url, token, timeout, retry)
        self.sessions = RemoteSessions(self._remote)

    @property
    def is_alive(self) -> bool:
        """Whether the server is there."""
        try:
            run_in_background(self._remote.call("GET", "/health"))
        except LLMError:
            return False
        return True

    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Make the turn over there; `kwargs` are the parameters that the server lets through."""
        return run_in_background(self._remote.forward(message, session_id, kwargs))

    def extra_repr(self) -> str:
        return repr(self.url)

    def _open_memory(self, session_id: SessionId) -> Memory:
        return self._remote.line(session_id)


class AsyncHTTPAgentClient(HTTPAgentClient, AsyncAgent):
    """An agent behind an `AgentServer`, called with `await`; see `HTTPAgentClient`."""

    async def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Make the turn over there; `kwargs` are the parameters that the server lets through."""
        return await self._remote.forward(message, session_id, kwargs)


class StreamingHTTPAgentClient(HTTPAgentClient, StreamingAgent):
    """An agent behind an `AgentServer`, whose call is an iterator of messages; see `HTTPAgentClient`."""

    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Iterator[AgentMessage]:
        """Make the turn over there, giving out its messages as they come."""
        with closing(iterate_in_background(self._remote.stream(message, session_id, kwargs))) as stream:  # type: ignore[type-var]
            yield from stream


class AsyncStreamingHTTPAgentClient(AsyncHTTPAgentClient, AsyncStreamingAgent):
    """An agent behind an `AgentServer`, whose call is an async iterator of messages; see `HTTPAgentClient`."""

    async def forward(  # type: ignore[override]  # the streaming form of the same call
        self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any
    ) -> AsyncIterator[AgentMessage]:
        """Make the turn over there, giving out its messages as they come."""
        async with aclosing(self._remote.stream(message, session_id, kwargs)) as stream:
            async for part in stream:
                yield part


class RemoteSessions(SessionState):
    """The sessions of an agent elsewhere; their keys stand in the tree as if it were here."""

    spreads: ClassVar[bool] = True

    def __init__(self, remote: _Remote) -> None:
        self._remote = remote

    def session_ids(self) -> list[SessionId]:
        names = self._ask("GET", "/sessions").get("sessions")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadResponse("the server's answer to GET /sessions has no list of names as its 'sessions'")
        return [_session_id(name) for name in names]

    def knows(self, session_id: SessionId) -> bool:
        return self._found(lambda: self._ask("GET", f"/sessions/{_wire_name(session_id)}"))

    def dump(self, session_id: SessionId) -> dict[str, Any]:
        state: dict[str, Any] = self._ask("GET", f"/sessions/{_wire_name(session_id)}/state?empty=1")
        return state

    def parse(self, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise StateError(f"the state of an agent elsewhere is a dict, got {type(value).__name__}")
        self._ask("PUT", "/sessions/0/state?check=1", value)
        return value

    def restore(self, session_id: SessionId, parsed: Mapping[str, Any] | None) -> None:
        if parsed is None:
            self.reset(session_id)
        else:
            self._ask("PUT", f"/sessions/{_wire_name(session_id)}/state", parsed)

    def snapshot(self, session_id: SessionId) -> Callable[[], None]:
        before = self.dump(session_id) if self.knows(session_id) else None
        return lambda: self.restore(session_id, before)

    def fork(self, session_id: SessionId, new_session_id: SessionId) -> None:
        body = {"new_session_id": _wire_name(new_session_id)}
        self._found(lambda: self._ask("POST", f"/sessions/{_wire_name(session_id)}/fork", body))

    def reset(self, session_id: SessionId) -> None:
        self._found(lambda: self._ask("DELETE", f"/sessions/{_wire_name(session_id)}"))

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return run_in_background(self._remote.call(method, path, body))

    def _found(self, ask: Callable[[], Any]) -> bool:
        """Ask about a session that may not be there; whether it is."""
        try:
            ask()
        except LLMError as error:
            if error.status != 404:
                raise
            return False
        return True


class _Remote:
    """The requests to one server, as coroutines."""

    def __init__(self, url: str, token: str | None, timeout: float | None, retry: int) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidArgument("url", url, "give the server's address, such as http://127.0.0.1:8090")
        seconds = float("inf") if timeout is None else timeout
        options = TransportOptions(first_byte=seconds, total=seconds, max_retries=retry)
        self._made_of = (url, token, timeout, retry)
        self._url = url
        self._transport = Transport(options)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._secrets = () if token is None else (token,)
        self._forward, self._stream = URL(f"{url}/forward"), URL(f"{url}/stream")
        self._lines: WeakValueDictionary[SessionId, _Line] = WeakValueDictionary()
        self._taking_back: set[Future[None]] = set()
        self._in_order = _in_order.setdefault(url, asyncio.Lock())
        _remotes.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of

    def line(self, session_id: SessionId) -> _Line:
        """Where the turns of a session line up."""
        return self._lines.setdefault(session_id, _Line(self, session_id))

    async def forward(
        self, messages: Sequence[AgentMessage], session_id: SessionId, params: Mapping[str, Any]
    ) -> AgentMessage:
        """The reply of one turn."""
        line = self.line(session_id)
        turn = line.next_turn()
        request = self._turn(self._forward, messages, session_id, params, turn)
        with line.making(turn):
            await self._settled()
            reply = message_from((await self._transport.post(request, _json)).get("message"))
            turn.answered = True
            return reply

    async def stream(
        self, messages: Sequence[AgentMessage], session_id: SessionId, params: Mapping[str, Any]
    ) -> AsyncGenerator[AgentMessage, None]:
        """The messages of one turn as they come."""
        line = self.line(session_id)
        turn = line.next_turn()
        request = self._turn(self._stream, messages, session_id, params, turn)
        with line.making(turn):
            await self._settled()
            stream = await self._transport.stream(request, lambda: _TurnEvents(turn))
            try:
                async for parts in stream:
                    for part in parts:
                        if isinstance(part, Exception):
                            raise part
                        yield part
            finally:
                stream.close()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a request that is no turn."""
        await self._settled()
        return await self._transport.post(self._request(URL(self._url + path), self._headers, body, method), _json)

    def take_back(self, session_id: SessionId, turns: Sequence[_Turn]) -> None:
        """Have turns of a session taken back over there, in this order; whatever is asked next comes after that."""
        future = background.submit(self._take_back(_wire_name(session_id), turns))
        self._taking_back.add(future)
        future.add_done_callback(self._taking_back.discard)

    async def _take_back(self, name: str, turns: Sequence[_Turn]) -> None:
        async with self._in_order:
            for turn in turns:
                url = URL(f"{self._url}/sessions/{name}/turns/{turn.key}")
                try:
                    await self._transport.post(self._request(url, self._headers, None, "DELETE"), _json)
                except (LagentlikeError, OSError) as error:
                    if turn.answered:  # else it may well not be there
                        logger.warning(
                            "a turn of session %s stands at %s: it was not taken back: %s", name, self._url, error
                        )

    async def _settled(self) -> None:
        """Wait until nothing is being taken back."""
        while self._taking_back:
            await asyncio.wait([asyncio.wrap_future(one) for one in list(self._taking_back)])

    def _turn(
        self,
        url: URL,
        messages: Sequence[AgentMessage],
        session_id: SessionId,
        params: Mapping[str, Any],
        turn: _Turn,
    ) -> Request:
        body = {
            "message": [message.plain(f"message {index}") for index, message in enumerate(messages)],
            "session_id": _wire_name(session_id),
            "params": params,
        }
        headers = {**self._headers, "Idempotency-Key": turn.key, "Turn-Within": turn.within}
        return self._request(url, headers, body)._replace(read_error=turn.refusal)

    def _request(self, url: URL, headers: Mapping[str, str], body: Any, method: str = "POST") -> Request:
        sent = b"" if body is None else _encoded(body)
        return Request(url, headers, sent, None, self._secrets, method, _told)


_remotes: WeakSet[_Remote] = WeakSet()
_in_order: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # of the background loop, one for each server


@atexit.register
def _let_turns_be_taken_back() -> None:
    wait([future for remote in _remotes for future in list(remote._taking_back)], timeout=2)


@dataclass(eq=False)
class _Turn:
    """A turn over there.

    Attributes:
        key: by which the server knows it.
        within: names the outermost turn that it is part of: the one here, or of a client that this process serves.
        place: how long the line was then.
        answered: whether it stands there, by what the server said.
        refused: whether it does not, by what the server said.
    """

    key: str
    within: str
    place: int
    answered: bool = False
    refused: bool = False

    def refusal(self, body: bytes) -> Exception | None:
        """The agent's own error, if an answer tells of one."""
        error = _told(body)
        self.refused |= error is not None
        return error


class _Line(Memory):
    """Where the turns of a session line up: it holds what the turn under way here did, and can take back."""

    def __init__(self, remote: _Remote, session_id: SessionId) -> None:
        super().__init__()
        self._remote, self._session_id = remote, session_id
        self._within = ""
        self._made: list[_Turn] = []

    def begin(self, outermost: Outermost) -> Mark:
        self._within = turn_within.get() or outermost.name
        return super().begin(outermost)

    def next_turn(self) -> _Turn:
        """The turn that is to be made over there."""
        return _Turn(uuid.uuid4().hex, self._within, len(self))

    @contextmanager
    def making(self, turn: _Turn) -> Iterator[None]:
        """Remember a turn, unless the server said that it does not stand, or was not there."""
        self._made.append(turn)
        try:
            yield
        except Exception as error:
            status = getattr(error, "status", None)
            if turn.refused or isinstance(error, ConnectFailed) or (status is not None and status < 500):
                self._made.remove(turn)
            raise

    def rewind(self, mark: Mark) -> list[AgentMessage]:
        gone = [turn for turn in reversed(self._made) if turn.place > mark[1]]
        if gone:
            del self._made[-len(gone) :]
            self._remote.take_back(self._session_id, gone)
        return super().rewind(mark)


class _TurnEvents:
    """Reads the events of `/stream`; an error is the last part, not raised, so that no turn is made again for it."""

    parser = EventParser

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn
        self._decoder = MessageDecoder()
        self._last: AgentMessage | None = None
        self.done = False

    @property
    def partial(self) -> str:
        content = None if self._last is None else self._last.content
        return content if isinstance(content, str) else ""

    def feed(self, events: list[bytes]) -> list[AgentMessage | LagentlikeError]:
        return [self._read(_json(event)) for event in events]

    def close(self) -> list[AgentMessage | LagentlikeError]:
        if not self.done:
            raise StreamTruncated("the stream ended before the reply came", partial=self.partial)
        return []

    def _read(self, event: Mapping[str, Any]) -> AgentMessage | LagentlikeError:
        if isinstance(event.get("error"), Mapping):
            self.done = self._turn.refused = True
            return error_from_wire(event["error"]) or refusal_in_stream(event, where="the agent's server")
        self.done = self._turn.answered = event.get("type") == "reply"
        self._last = self._decoder.decode(event)
        return self._last


def _json(body: bytes) -> Any:
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadResponse(
            f"the server's answer is no JSON: {error}", raw=body[:1024].decode("utf-8", "replace")
        ) from None
    if not isinstance(read, dict):
        raise BadResponse(f"the server's answer is no object but {type(read).__name__}")
    return read


def _encoded(body: Any) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # lone surrogates, integers of more than 64 bits; what is no JSON at all
        try:
            return json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise InvalidArgument("params", body.get("params"), f"they go over HTTP as JSON: {error}") from None


def _told(body: bytes) -> Exception | None:
    """The agent's own error, if an answer tells of one."""
    try:
        error = _json(body).get("error")
    except BadResponse:
        return None
    return error_from_wire(error) if isinstance(error, Mapping) else None


def _wire_name(session_id: SessionId) -> str:
    """A session id as servers take it: itself if it can be, else its JSON in base64 (or a digest of that)."""
    if isinstance(session_id, int) and 0 <= session_id < 10**64:
        return str(session_id)
    if isinstance(session_id, str) and _PLAIN.fullmatch(session_id) and not _is_number(session_id):
        return session_id
    text = json.dumps(session_id, separators=(",", ":")).encode()
    coded = "_" + base64.urlsafe_b64encode(text).decode().rstrip("=")
    return coded if len(coded) <= 64 else "__" + hashlib.sha256(text).hexdigest()[:62]


def _session_id(name: str) -> SessionId:
    """The session id that a server's name for it stands for."""
    if _is_number(name):
        return int(name)
    if name[:1] == "_" and name[:2] != "__":
        try:
            return _id_of(json.loads(base64.urlsafe_b64decode(name[1:] + "=" * (-len(name[1:]) % 4))))
        except ValueError:
            return name
    return name


_PLAIN = re.compile(r"[A-Za-z0-9-][A-Za-z0-9_-]{0,63}")


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and (name == "0" or name[0] != "0")


def _id_of(value: Any) -> SessionId:
    return tuple(_id_of(item) for item in value) if isinstance(value, list) else value
