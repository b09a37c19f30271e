"""The server of the page: an agent's sessions and turns, as the page asks for them."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from ...concurrency import in_thread
from ...memory import SessionId, SessionStore
from ...memory.state import check_session_id, id_from_json
from ...module import Module
from ...schema import AgentMessage
from ..agent_protocol import checked_name, Item, read_body, read_turn, TurnRequest
from ..agent_server import AgentServer, Said
from ..http_face import json_response, Limits, read_json
from ..openai_protocol import BadRequest
from ..sessions import Session
from . import look
from .feed import Feed
from .page import OPEN_PATHS, Page, page_url
from .point import Point
from .spans import SpanLog, Watcher

__all__ = ["UIServer"]

T = TypeVar("T")


class UIServer(AgentServer):
    """Serves a page on which to watch an agent and to talk to it.

    Turns go on when the page is closed. The page has what other parts of the process do with the agent, too: sessions
    that they made can be looked at there, and forked.

    Args:
        agent: the agent, as for `AgentServer`.
        port: port to listen on, on this machine alone; 0 takes a free one.
        token: what the page must send; made up by default.
        store: where sessions are kept, as for `AgentServer`.
        max_spans: most spans that are remembered.
        limits: how much the server takes, and how long it waits.

    Raises:
        InvalidArgument: `agent` is none.
    """

    open_paths = OPEN_PATHS

    def __init__(
        self,
        agent: Module | Mapping[str, Any] | str,
        *,
        port: int = 0,
        token: str | None = None,
        store: SessionStore | str | Path | None = None,
        max_spans: int = 2000,
        limits: Limits | None = None,
    ) -> None:
        self._token = token or secrets.token_urlsafe(24)
        super().__init__(agent, port=port, token=self._token, store=store, limits=limits or Limits(grace=3.0))
        self.feed = Feed()
        self._log = SpanLog(self.feed, max_spans)
        self._pages = Page(self, self._log)
        self._turns: dict[str, asyncio.Task[None]] = {}  # those under way that the page began, by session
        self._points: OrderedDict[tuple[SessionId, int], Point] = OrderedDict()  # by session, and messages there were
        self._origins: dict[SessionId, SessionId] = {}  # by fork

    @property
    def page_url(self) -> str:
        """Where the page is; whoever has this address can use the agent."""
        return page_url(self.address, self._token)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        self._pages.add_routes(router)
        router.add_get("/ui/agent", self._show_agent)
        router.add_get("/ui/sessions", self._show_sessions)
        router.add_get("/ui/sessions/{key:[^/]+}", self._show_session)
        router.add_delete("/ui/sessions/{key:[^/]+}", self._forget)
        router.add_get("/ui/sessions/{key:[^/]+}/memory", self._show_memory)
        router.add_post("/ui/sessions/{key:[^/]+}/turns", self._begin)
        router.add_post("/ui/sessions/{key:[^/]+}/stop", self._stop_turn)
        router.add_post("/ui/sessions/{key:[^/]+}/steer", self._steer)
        router.add_post("/ui/sessions/{key:[^/]+}/fork", self._fork_at)

    def app(self) -> web.Application:
        app = super().app()
        app.cleanup_ctx.append(self._watching)
        return app

    async def stop(self) -> None:
        self.feed.close()  # or the page's stream would go on for the whole grace
        await super().stop()

    # What the page asks

    async def _show_agent(self, http: web.Request) -> web.Response:
        steers = callable(getattr(self.unit, "steer", None))
        return json_response({"name": self.name, "live": True, "steers": steers, "units": look.units(self.unit)})

    async def _show_sessions(self, http: web.Request) -> web.Response:
        """The last sessions: those of this server, and those that other code made, to be looked at and forked."""
        own = dict.fromkeys([*await self.sessions.names(""), *self._turns])
        speaking = [id_from_json(json.loads(key)) for key in self._log.sessions(running=True)]  # not yet in memory
        found = dict.fromkeys([*look.session_ids(self.unit), *speaking])
        others = [one for one in found if one not in own]
        listed = [(one, False) for one in others[-_MOST_SESSIONS:]] + [(one, True) for one in [*own][-_MOST_SESSIONS:]]
        return json_response({"sessions": [self._about(one, owned) for one, owned in listed]})

    def _about(self, session_id: SessionId, own: bool) -> dict[str, Any]:
        origin = self._origins.get(session_id)
        return {
            "key": look.key_of(session_id),
            "title": look.title(self.unit, session_id) or self._log.beginning(look.key_of(session_id)),
            "own": own,
            "running": session_id in self._turns,
            "origin": None if origin is None else look.key_of(origin),
        }

    async def _show_session(self, http: web.Request) -> web.Response:
        before = http.query.get("before", "")
        async with self._seen(http) as session_id:
            asked = time.time()
            memories = await self._read(look.trunk, self.unit, session_id)
            told = look.conversation(memories, int(before) if _is_number(before) else None)
            points = [point for name, point in self._points if name == session_id]
            about = self._about(session_id, await self._owns(session_id))
            return json_response({**told, "time": asked, "points": points, **about})

    async def _show_memory(self, http: web.Request) -> web.Response:
        async with self._seen(http) as session_id:
            try:
                told = await self._read(look.recall, self.unit, http.query.get("path", ""), session_id)
                return json_response(told)
            except AttributeError as error:
                raise BadRequest(str(error), status=404) from None

    async def _forget(self, http: web.Request) -> web.Response:
        name = self._name(http)
        if not await self._owns(name):
            raise BadRequest("other code made this session, if there is one: it is not forgotten from here", status=409)
        async with self.sessions.use("", name) as session:
            await self.sessions.delete(session)
        self._origins.pop(name, None)
        for place in [place for place in self._points if place[0] == name]:
            del self._points[place]
        self.feed.publish({"type": "sessions"})
        return json_response({"deleted": True})

    async def _begin(self, http: web.Request) -> web.Response:
        """Begin a turn, which goes on whoever looks at it."""
        name = self._name(http)
        body: _Say = read_body(_Say, await read_json(http, self.limits))
        request = read_turn({"message": body.message, "session_id": name}, self.params, None)
        if name in look.session_ids(self.unit) and not await self._owns(name):
            raise BadRequest("other code made this session: fork it, and go on in the fork", status=409)
        if name in self._turns:
            raise BadRequest("a turn of this session is under way: stop it, or wait for it", status=409)
        task = self._turns[name] = asyncio.create_task(self._run_turn(name, request))
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)
        self.feed.publish({"type": "sessions"})
        return json_response({"session": look.key_of(name)}, status=202)

    async def _run_turn(self, name: str, request: TurnRequest) -> None:
        key, said = look.key_of(name), Said()
        event: dict[str, Any] = {"type": "turn", "session": key}

        async def give(message: AgentMessage) -> None:
            for text in said.new(message):
                self._log.say(key, text)

        try:
            async with self.sessions.use("", name) as session:
                self._remember_point(session)
                await self._answered(session, request, give)
        except asyncio.CancelledError:
            event["stopped"] = True
        except Exception as error:  # noqa: BLE001  # the page shows it, whatever it is
            event["error"] = {"type": type(error).__name__, "message": str(error)}
        finally:
            del self._turns[name]
            self.feed.publish({**event, "point": look.length(self.unit, name)})

    async def _stop_turn(self, http: web.Request) -> web.Response:
        task = self._turns.get(self._name(http))
        if task is not None:
            task.cancel()
        return json_response({"stopping": task is not None})

    async def _steer(self, http: web.Request) -> web.Response:
        """Say something to a run that is under way, where the agent can be told."""
        name = self._name(http)
        body: _Words = read_body(_Words, await read_json(http, self.limits))
        steer = getattr(self.unit, "steer", None)
        if not callable(steer):
            raise BadRequest("this agent is not told anything while it works", status=409)
        return json_response({"told": name in self._turns and bool(steer(name, body.words))})

    async def _fork_at(self, http: web.Request) -> web.Response:
        """Let a new session begin where another one is, or was before a turn that this server made."""
        body: _Fork = read_body(_Fork, await read_json(http, self.limits))
        new = checked_name("name", body.name)
        if new in look.session_ids(self.unit) or await self._owns(new):
            raise BadRequest(f"the session {new!r} exists", param="name", status=409, code="session_exists")
        async with self._seen(http) as session_id, self.sessions.use("", new) as session:
            if body.point in (None, look.length(self.unit, session_id)):
                await self._read(self.unit.fork, session_id, new)
            elif (session_id, body.point) in self._points:
                self._points[session_id, body.point].begin(new)
            else:
                raise BadRequest("how the agent was at this point is not remembered", status=409)
            await self.sessions.keep(session)
            end = look.length(self.unit, new)
        for (one, at), point in list(self._points.items()):
            if one == session_id and at < end:
                self._points[new, at] = point
        self._origins[new] = session_id
        self.feed.publish({"type": "sessions"})
        return json_response({"session": look.key_of(new)})

    # Sessions

    def _session_id(self, http: web.Request) -> SessionId:
        try:
            session_id: SessionId = check_session_id(id_from_json(json.loads(http.match_info["key"])))
        except (ValueError, RecursionError):
            raise BadRequest("this is no session", status=404) from None
        return session_id

    def _name(self, http: web.Request) -> str:
        return checked_name("session", self._session_id(http))

    async def _owns(self, session_id: SessionId) -> bool:
        """Whether a session was made by this server."""
        return session_id in self._turns or session_id in await self.sessions.names("")

    @asynccontextmanager
    async def _seen(self, http: web.Request) -> AsyncIterator[SessionId]:
        """The session that a path names, in memory; while a turn of it is under way, as it was before that."""
        session_id = self._session_id(http)
        if session_id in self._turns or not await self._owns(session_id):
            yield session_id
        else:
            async with self.sessions.use("", str(session_id)):
                yield session_id

    async def _read(self, look_at: Callable[..., T], *arguments: Any) -> T:
        """Look at the agent; in a thread where a part of it is elsewhere."""
        if any(state.spreads for _, state in self.unit.named_states()):
            return await in_thread(look_at, *arguments)
        return look_at(*arguments)

    def _remember_point(self, session: Session) -> None:
        """Keep how a session is before a turn."""
        place = (session.name, look.length(self.unit, session.unit_id))
        if place[1] and not any(state.spreads for _, state in self.unit.named_states()):
            self._points[place] = Point(self.unit, session.unit_id)
            while len(self._points) > _MOST_POINTS:
                self._points.popitem(last=False)

    async def _watching(self, app: web.Application) -> AsyncIterator[None]:
        with Watcher(self.unit, self._log):
            yield


class _Say(BaseModel):
    model_config = ConfigDict(extra="forbid")

    message: Item


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid")

    words: str = Field(min_length=1)


class _Fork(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    point: int | None = None


_MOST_POINTS = 500
_MOST_SESSIONS = 200


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
