"""An agent behind an HTTP server: native routes, and OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from ..errors import InvalidArgument, SessionConflict, StateError
from ..memory import Keeper, open_store, SessionStore
from ..module import Module
from ..registry import create_object, import_object
from ..schema import AgentMessage
from ..turn import recorded
from .agent_protocol import (
    AgentChat,
    check_turn_key,
    checked_name,
    completion_of,
    ForkBody,
    read_body,
    read_chat,
    read_turn,
    SAMPLING_PARAMS,
    take_over,
    turn_within,
    TurnBody,
    TurnRequest,
)
from .error_wire import refusal_of
from .http_face import HTTPFace, json_response, Limits, Put, read_json
from .message_stream import MessageEncoder
from .openai_protocol import BadRequest, DONE, Reply
from .openapi import document, Operation, page
from .sessions import NotKept, Session, Sessions
from .turns import Part, run_turn

__all__ = ["AgentServer", "Said"]


class AgentServer(HTTPFace):
    """Serves an agent over HTTP: to `HTTPAgentClient`, to any client of OpenAI's chat completions, to `curl`.

    Routes: `POST /forward` and `/stream`, `GET /sessions`, `GET` and `DELETE /sessions/{id}`, `POST
    /sessions/{id}/fork`, `GET` and `PUT /sessions/{id}/state`, `POST /v1/chat/completions`, `GET /v1/models`, `GET
    /health`; `/docs` and `/openapi.json` tell more.

    Each conversation is a session; it belongs to the token that made it, and nobody else sees it. Turns of one session
    run in order. A client that leaves takes its turn with it: memory is as before.

    Args:
        agent: the agent, of any colour; or `dict(type=...)` of one, or the dotted path of one or of what makes one.
            Blocking ones run in threads, where a turn cannot be stopped half-way.
        name: the name that clients of `/v1` ask for; the agent's own by default.
        host: address to listen on.
        port: port to listen on; 0 takes a free one, which `port` then tells.
        token: clients must send it as `Authorization: Bearer …`; several go by the name of who has them. Needed
            wherever others can connect.
        store: where sessions are kept after each turn, before it is answered: a `SessionStore`, the path of an SQLite
            file, or an address (`postgresql://…`, `redis://…`), which the server opens and closes. Without one they are
            where the agent itself keeps them (`agent.keep`), or gone with the process.
        params: the parameters of a call that clients may set, such as `temperature`; by default those that change how
            a model samples, if the agent's `forward` takes any.
        max_concurrency: most turns at once; more wait.
        max_sessions: most sessions in memory; with a store the others are read when they are used, without one the
            least recently used is forgotten.
        ttl: seconds after which a session that is not used leaves the memory.
        on_evict: called with the name of the token's owner and the session's id when a session leaves the memory.
        hosts: further host names that it answers to, such as that of a proxy before it.
        limits: how much it takes, and how long it waits.

    Raises:
        InvalidArgument: `host` is open to others and there is no `token`, `agent` is none, or it keeps its sessions
            itself and there is a `store` as well.

    >>> import asyncio
    >>> from lagentlike import AsyncAgent
    >>> from lagentlike.llms import AsyncScriptedLLM
    >>> from lagentlike.serving import AsyncHTTPAgentClient
    >>> async def main():
    ...     async with AgentServer(AsyncAgent(AsyncScriptedLLM(["Hello!"])), port=0) as server:
    ...         return (await AsyncHTTPAgentClient(url=server.url)("Hi", session_id="ann")).content
    >>> asyncio.run(main())
    'Hello!'
    """

    open_paths: Collection[str] = ("/health", "/docs", "/openapi.json")

    def __init__(
        self,
        agent: Module | Mapping[str, Any] | str,
        name: str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 8090,
        token: str | Mapping[str, str] | None = None,
        store: SessionStore | str | Path | None = None,
        params: Collection[str] | None = None,
        max_concurrency: int = 256,
        max_sessions: int = 10_000,
        ttl: float | None = None,
        on_evict: Callable[[str, str], None] | None = None,
        hosts: Collection[str] = (),
        limits: Limits | None = None,
    ) -> None:
        super().__init__(host=host, port=port, token=token, max_concurrency=max_concurrency, hosts=hosts, limits=limits)
        if isinstance(max_sessions, bool) or not isinstance(max_sessions, int) or max_sessions < 1:
            raise InvalidArgument("max_sessions", max_sessions, "give a number of at least 1")
        if ttl is not None and not ttl > 0:
            raise InvalidArgument("ttl", ttl, "give seconds, more than 0, or None")
        self.unit = _unit(agent)
        if store is not None and self.unit._keeper is not None:
            raise InvalidArgument("store", store, f"{self.unit.name} keeps its sessions itself: leave one of both out")
        self.name = name or self.unit.name
        self.params = frozenset(_sampling(self.unit) if params is None else params)
        self._store = store
        self.sessions = Sessions(self.unit, max_sessions, ttl, on_evict)
        self._sweep_every = min(60.0, (ttl or 240.0) / 4)
        self._started = int(time.time())

    @property
    def url(self) -> str:
        """The base address that clients are given, such as `http://127.0.0.1:8090`; OpenAI's take it with `/v1`."""
        return self.address

    def app(self) -> web.Application:
        app = super().app()
        app.cleanup_ctx.append(self._keeping)
        return app

    def add_routes(self, router: web.UrlDispatcher) -> None:
        handlers: dict[str, dict[str, Any]] = {
            "/forward": {"POST": self._forward},
            "/stream": {"POST": self._stream},
            "/sessions": {"GET": self._list},
            "/sessions/{session_id}": {"GET": self._show, "DELETE": self._delete},
            "/sessions/{session_id}/fork": {"POST": self._fork},
            "/sessions/{session_id}/turns/{turn}": {"DELETE": self._take_back},
            "/sessions/{session_id}/state": {"GET": self._state, "PUT": self._load},
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/models": {"GET": self._models},
            "/openapi.json": {"GET": self._document},
            "/docs": {"GET": self._page},
        }
        for path, methods in handlers.items():
            for method, handler in methods.items():
                router.add_route(method, path, handler)

    def failure(self, error: Exception) -> BadRequest:
        return refusal_of(error)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of the server."""
        description = getattr(self.unit, "description", None) or f"The agent {self.name}."
        return document(self.name, description, _OPERATIONS, bool(self._tokens))

    # Turns

    async def turn(self, owner: str, request: TurnRequest, part: Part | None = None) -> AgentMessage:
        """One turn of a session, kept before its reply is returned; parts of a streamed one go to `part`."""
        async with self.sessions.use(owner, request.session_id) as session:
            return await self._answered(session, request, part)

    async def _answered(self, session: Session, request: TurnRequest, part: Part | None) -> AgentMessage:
        known = session.answered(request.turn)
        if known is not None:  # the client did not get the answer, and asks again
            return known
        token = turn_within.set(request.within)
        try:
            with recorded() as record:
                reply = await self._run(session, request, part)
        finally:
            turn_within.reset(token)
        try:
            await self.sessions.keep(session, request.turn, reply, request.within, record)
        except SessionConflict:
            await self.sessions.fetch(session)
            known = session.answered(request.turn)
            if known is None:
                raise
            return known  # another server was asked for the very same turn, and was faster
        return reply

    async def _run(self, session: Session, request: TurnRequest, part: Part | None) -> AgentMessage:
        async with self._slots:
            return await run_turn(self.unit, request.messages, session.unit_id, request.params, part)

    async def _forward(self, http: web.Request) -> web.Response:
        request = await self._read_turn(http)
        reply = await self.turn(self.owner(http), request)
        return json_response({"session_id": request.session_id, "message": _plain(reply)})

    async def _stream(self, http: web.Request) -> web.StreamResponse:
        request = await self._read_turn(http)
        return await self.stream(http, partial(self._give, self.owner(http), request))

    async def _give(self, owner: str, request: TurnRequest, put: Put) -> None:
        encoder = MessageEncoder()

        async def part(message: AgentMessage) -> None:
            await put(encoder.encode(message))

        reply = await self.turn(owner, request, part)
        await put({"type": "reply", "session_id": request.session_id, "message": _plain(reply)})

    async def _read_turn(self, http: web.Request) -> TurnRequest:
        turn, within = check_turn_key(http.headers), check_turn_key(http.headers, "Turn-Within")
        return read_turn(await read_json(http, self.limits), self.params, turn, within)

    # Chat completions

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        body = await read_json(http, self.limits)
        chat = read_chat(body, http.headers.get("X-Session-Id"), self.params, check_turn_key(http.headers))
        if chat.chat.model != self.name:
            told = f"there is no model {chat.chat.model[:100]!r} here, only {self.name!r}"
            raise BadRequest(told, param="model", status=404, code="model_not_found")
        owner, reply = self.owner(http), Reply(chat.chat)
        headers = {} if chat.session_id is None else {"X-Session-Id": chat.session_id}
        if chat.chat.stream:
            return await self.stream(http, partial(self._say, owner, chat, reply), headers)
        message = await self._chat_turn(owner, chat, None)
        return json_response(reply.whole([completion_of(message)]), headers=headers)

    async def _say(self, owner: str, chat: AgentChat, reply: Reply, put: Put) -> None:
        """Give out what the agent says, on its way too, as the text of one answer."""
        said = Said()

        async def part(message: AgentMessage) -> None:
            if not said.begun:
                said.begun = True
                await put(reply.opening(0))
            for text in said.new(message):
                await put(reply.text(0, text))

        message = await self._chat_turn(owner, chat, part)
        await part(message)
        answer = completion_of(message)
        for event in reply.closing(0, answer):
            await put(event)
        if chat.chat.include_usage:
            await put(reply.usage([answer]))
        await put(DONE)

    async def _chat_turn(self, owner: str, chat: AgentChat, part: Part | None) -> AgentMessage:
        if chat.session_id is None:
            async with self.sessions.passing() as session:
                take_over(self.unit, session.unit_id, chat.past)
                return await self._run(session, chat.turn, part)
        async with self.sessions.use(owner, chat.session_id) as session:
            if not session.spoken:
                take_over(self.unit, session.unit_id, chat.past)
            return await self._answered(session, chat.turn, part)

    async def _models(self, http: web.Request) -> web.Response:
        card = {"id": self.name, "object": "model", "created": self._started, "owned_by": "lagentlike"}
        return json_response({"object": "list", "data": [card]})

    # Sessions

    async def _list(self, http: web.Request) -> web.Response:
        return json_response({"sessions": await self.sessions.names(self.owner(http))})

    async def _show(self, http: web.Request) -> web.Response:
        async with self._known(http) as session:
            return json_response({"session_id": session.name, "messages": await self.sessions.messages(session)})

    async def _delete(self, http: web.Request) -> web.Response:
        async with self._known(http) as session:
            await self.sessions.delete(session)
            return json_response({"session_id": session.name, "deleted": True})

    async def _take_back(self, http: web.Request) -> web.Response:
        turn = http.match_info["turn"]
        async with self._known(http, or_new=True) as session:
            if not await self.sessions.take_back(session, turn):
                told = (
                    f"there is no turn {turn[:128]!r} at the end of the session {session.name!r} that can be taken back"
                )
                raise BadRequest(told, status=404, code="turn_not_found")
            return json_response({"session_id": session.name, "taken_back": turn})

    async def _fork(self, http: web.Request) -> web.Response:
        body: ForkBody = read_body(ForkBody, await read_json(http, self.limits))
        name = checked_name("session_id", http.match_info["session_id"])
        if body.new_session_id == name:
            raise BadRequest("a session cannot be forked into itself", param="new_session_id", status=409)
        owner, names = self.owner(http), sorted((name, body.new_session_id))  # in order, so that none waits in a circle
        async with self.sessions.use(owner, names[0]) as first, self.sessions.use(owner, names[1]) as second:
            session, new = (first, second) if first.name == name else (second, first)
            if not session.spoken:
                raise _no_session(name)
            if new.spoken:
                told = f"the session {new.name!r} exists: delete it first"
                raise BadRequest(told, param="new_session_id", status=409, code="session_exists")
            await self.sessions.fork(session, new)
            return json_response({"session_id": new.name})

    async def _state(self, http: web.Request) -> web.Response:
        async with self._known(http, or_new="empty" in http.query) as session:
            return json_response(await self.sessions.state(session))

    async def _load(self, http: web.Request) -> web.Response:
        state = await read_json(http, self.limits)
        if not isinstance(state, Mapping):
            raise StateError(f"a state dict is a dict, got {type(state).__name__}")
        if "check" in http.query:
            async with self.sessions.passing() as session:
                await self.sessions.load(session, state)
                return json_response({"checked": True})
        async with self._known(http, or_new=True) as session:
            await self.sessions.load(session, state)
            await self.sessions.keep(session)
            return json_response({"session_id": session.name})

    @asynccontextmanager
    async def _known(self, http: web.Request, *, or_new: bool = False) -> AsyncIterator[Session]:
        """The session that a request's path names."""
        name = checked_name("session_id", http.match_info["session_id"])
        async with self.sessions.use(self.owner(http), name) as session:
            if not (session.spoken or or_new):
                raise _no_session(name)
            yield session

    # About itself

    async def _document(self, http: web.Request) -> web.Response:
        return json_response(self.openapi())

    async def _page(self, http: web.Request) -> web.Response:
        return web.Response(
            text=page(self.openapi()),
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    async def _keeping(self, app: web.Application) -> AsyncIterator[None]:
        """Open the store while the server runs, and let go of old sessions now and then."""

        async def sweep() -> None:
            while True:
                await asyncio.sleep(self._sweep_every)
                self.sessions.sweep()

        store = None if self._store is None else open_store(self._store)
        try:
            if store is not None:
                await store.version(0)  # now, not at the first turn, it tells that it cannot be reached
            own = self.unit._keeper
            self.sessions.keeper = own if store is None else Keeper(self.unit, store, max_sessions=sys.maxsize)
            sweeping = asyncio.create_task(sweep())
            yield
            sweeping.cancel()
        finally:
            if store is not None and store is not self._store:  # who opened it closes it
                await store.close()


def _plain(reply: AgentMessage) -> dict[str, Any]:
    try:
        return reply.plain("the reply")
    except TypeError as error:
        raise NotKept(f"the reply cannot be sent: {error}") from error


def _no_session(name: str) -> BadRequest:
    return BadRequest(f"there is no session {name!r}", status=404, code="session_not_found")


class Said:
    """The texts of a stream of messages, as one text."""

    def __init__(self) -> None:
        self._sender = self._text = ""
        self._any = False
        self.begun = False

    def new(self, message: AgentMessage) -> Iterator[str]:
        """What the next message adds; another one than the last begins after a blank line."""
        if message.tool_results is not None:
            return
        text = message.text
        if text == self._text or (message.sender == self._sender and text.startswith(self._text)):
            new = text[len(self._text) :]
        else:
            new = text
            if self._any and text:
                yield "\n\n"
        self._sender, self._text = message.sender, text
        if new:
            self._any = True
            yield new


def _unit(agent: Any) -> Module:
    unit = import_object(agent, "agent") if isinstance(agent, str) else create_object(agent, "agent")
    if not isinstance(unit, Module) and callable(unit):
        unit = unit()
    if not isinstance(unit, Module):
        raise InvalidArgument("agent", agent, "give an agent, dict(type=...) of one, or the dotted path of one")
    return unit


def _sampling(unit: Module) -> frozenset[str]:
    """The generation parameters, if the unit takes any parameters."""
    parameters = inspect.signature(type(unit).forward).parameters.values()
    return SAMPLING_PARAMS if any(one.kind is one.VAR_KEYWORD for one in parameters) else frozenset()


_STATE = {"type": "object", "description": "What GET gave: the path of each memory with its messages."}
_EVENTS = "text/event-stream"
_OPERATIONS = (
    Operation("GET", "/health", "Tells whether the server is there; needs no token."),
    Operation("POST", "/forward", "Makes one turn.", TurnBody, "The session, and the reply: session_id, message."),
    Operation(
        "POST",
        "/stream",
        "Makes one turn, and tells of it as it goes.",
        TurnBody,
        "Events: 'message' with a part of the reply, 'delta' with what its content has more now, at last 'reply'.",
        _EVENTS,
    ),
    Operation("GET", "/sessions", "Lists the sessions of this token.", answer="Their ids: sessions."),
    Operation("GET", "/sessions/{session_id}", "Shows a conversation.", answer="Its messages."),
    Operation("DELETE", "/sessions/{session_id}", "Forgets a session."),
    Operation("POST", "/sessions/{session_id}/fork", "Lets a new session begin where another one is.", ForkBody),
    Operation(
        "DELETE",
        "/sessions/{session_id}/turns/{turn}",
        "Takes back the last turn, by its Idempotency-Key, if its header Turn-Within named what it is part of; then "
        "the one before, if it is part of the same.",
    ),
    Operation(
        "GET",
        "/sessions/{session_id}/state",
        "Gives all that is remembered of a session.",
        answer="The agent's state_dict.",
        query=(("empty", "give the state of a session that has not spoken, where there is none"),),
    ),
    Operation(
        "PUT",
        "/sessions/{session_id}/state",
        "Takes over what GET gave, whole or not at all.",
        _STATE,
        query=(("check", "only say whether it fits"),),
    ),
    Operation(
        "POST",
        "/v1/chat/completions",
        "Makes one turn, as OpenAI's chat completions; the session is in the header X-Session-Id, in "
        "metadata.session_id or in user. Tools run here.",
        {"type": "object", "required": ["model", "messages"]},
        "A chat completion, or its chunks with stream=true.",
    ),
    Operation("GET", "/v1/models", "Lists the agent as a model."),
)
