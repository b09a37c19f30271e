"""A server with Lagent's routes, for its clients and its users."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ..module import Module
from .agent_protocol import check_turn_key, checked_name, read_turn
from .agent_server import AgentServer
from .http_face import json_response, read_json
from .openai_protocol import BadRequest

__all__ = ["AgentAPIServer", "AsyncAgentAPIServer"]


class AgentAPIServer(AgentServer):
    """An `AgentServer` that has Lagent's routes as well: `/health_check`, `/chat_completion`, `/memory/{session_id}`.

    Args:
        config: the agent, or `dict(type=...)` of one.
        host, port: where it listens.
        options: as for `AgentServer`.
    """

    def __init__(
        self, config: Module | Mapping[str, Any] | str, host: str = "127.0.0.1", port: int = 8090, **options: Any
    ) -> None:
        super().__init__(config, host=host, port=port, **options)

    def run(self) -> None:
        """Serve until told to stop, by Ctrl-C or SIGTERM."""
        asyncio.run(self.serve())

    def add_routes(self, router: web.UrlDispatcher) -> None:
        super().add_routes(router)
        router.add_get("/health_check", self._health)
        router.add_post("/chat_completion", self._chat_completion)
        router.add_get("/memory/{session_id}", self._memory)

    async def _chat_completion(self, http: web.Request) -> web.Response:
        body = await read_json(http, self.limits)
        if not isinstance(body, Mapping):
            raise BadRequest("the body is no object: send one with 'message' and 'session_id'")
        params = {name: value for name, value in body.items() if name not in ("message", "session_id")}
        session_id = _name(body.get("session_id", 0))
        turn = {"message": body.get("message"), "session_id": session_id, "params": params}
        request = read_turn(turn, self.params, check_turn_key(http.headers))
        return json_response((await self.turn(self.owner(http), request)).plain("the reply"))

    async def _memory(self, http: web.Request) -> web.Response:
        name = checked_name("session_id", http.match_info["session_id"])
        async with self.sessions.use(self.owner(http), name) as session:
            return json_response(await self.sessions.state(session))


AsyncAgentAPIServer = AgentAPIServer
"""The same: one server serves agents of every colour."""


def _name(session_id: Any) -> str:
    """A session id of Lagent's, which is a number, as ours."""
    is_number = type(session_id) is int and session_id >= 0
    return checked_name("session_id", str(session_id) if is_number else session_id)
