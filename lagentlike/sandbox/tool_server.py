"""Tools that hold credentials, in a process of their own beside the sandboxes."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson
from aiohttp import web

from ..errors import InvalidArgument, SandboxError, ToolArgumentsError
from ..schema import ToolCall, ToolResult
from .http import bearer, checked_token, guarded, json_reply, Listener, MAX_BODY, read_body, read_json
from .tools import Tools

__all__ = ["ToolServer", "ToolServerClient"]

MAX_SECONDS = 600.0
"""Longest time that a call may ask for."""


class ToolServer(Listener):
    """Serves tools over HTTP to those who have its token.

    Routes: `GET /health`, `GET /tools`, `POST /execute` with `{"name", "arguments", "id", "session_id", "timeout_s"}`,
    answered by `{"success", "output", "error", "metadata", "id", "name"}`.

    Args:
        tools: the tools, a `ToolRegistry`; those of the sandbox are not served.
        token: what clients must send as `Authorization: Bearer …`, at least 16 characters.
        host, port: where it listens; port 0 takes a free one.

    Raises:
        InvalidArgument: the token keeps nobody out.
    """

    def __init__(self, tools: Tools, token: str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host, port)
        self.tools = tools
        self._token = checked_token(token)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[guarded(self._token)])
        app.router.add_get("/health", self._health)
        app.router.add_get("/tools", self._list)
        app.router.add_post("/execute", self._execute)
        return app

    async def _health(self, request: web.Request) -> web.Response:
        return json_reply({"status": "ok", "tools": len(self._served())})

    async def _list(self, request: web.Request) -> web.Response:
        served = set(self._served())
        schemas = [schema for schema in self.tools.get_schemas() if schema["function"]["name"] in served]
        return json_reply({"tools": schemas})

    async def _execute(self, request: web.Request) -> web.Response:
        body = await read_json(request, "name", "arguments", "id", "session_id", "timeout_s")
        name, session_id, seconds = body.get("name"), body.get("session_id", 0), body.get("timeout_s")
        if not isinstance(name, str) or name not in self._served():
            raise InvalidArgument("name", name, f"the tools are {', '.join(self._served())}")
        if not isinstance(session_id, str | int) or isinstance(session_id, bool) or len(str(session_id)) > 256:
            raise InvalidArgument("session_id", session_id, "give a text of at most 256 characters, or a number")
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
            raise InvalidArgument("timeout_s", seconds, "give seconds")
        arguments = body.get("arguments", {})
        if not isinstance(arguments, dict | str):
            raise InvalidArgument("arguments", arguments, "give an object")
        call = ToolCall(name, arguments, id=str(body.get("id", "")))
        limit = MAX_SECONDS if seconds is None else min(max(float(seconds), 0.001), MAX_SECONDS)
        result = await self.tools.execute(call, session_id=session_id, timeout_s=limit)
        return json_reply(
            {
                "success": result.success,
                "output": result.output,
                "error": result.error,
                "metadata": result.metadata,
                "id": result.id,
                "name": result.name,
            }
        )

    def _served(self) -> list[str]:
        return [name for name in self.tools.list_tools() if self.tools.where(name) != "sandbox"]


class ToolServerClient:
    """Calls the tools of a ToolServer.

    Args:
        url: where it listens.
        token: its token.

    Raises:
        InvalidArgument: there is no token.
    """

    def __init__(self, url: str, token: str | None) -> None:
        if token is None:
            raise InvalidArgument("tool_server_token", token, "give the token of the ToolServer")
        self.url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._headers = bearer(token)

    async def execute(self, call: ToolCall, session_id: str, timeout_s: float) -> ToolResult:
        """Run a call there; the result has the call's id.

        Raises:
            ToolArgumentsError: the arguments are none that can be sent.
            SandboxError: the server cannot be reached, refuses, or answers with what is no result.
        """
        asked = {"name": call.name, "arguments": call.arguments, "id": call.id}
        try:
            body = orjson.dumps({**asked, "session_id": session_id, "timeout_s": timeout_s})
        except TypeError as wrong:  # such as numbers of more than 64 bits
            raise ToolArgumentsError(f"the arguments of {call.name} cannot be sent: {wrong}") from None
        reply = await self._post("/execute", body, timeout_s + 5)
        success, output, error = reply.get("success"), reply.get("output", ""), reply.get("error", "")
        metadata = reply.get("metadata", {})
        if not isinstance(success, bool) or not isinstance(output, str) or not isinstance(error, str):
            raise SandboxError("the ToolServer answered with what is no result")
        metadata = metadata if isinstance(metadata, dict) else {}
        return ToolResult(success, output, error, metadata, call.id, call.name)

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, path: str, body: bytes, seconds: float) -> dict[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        limit = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.post(self.url + path, data=body, timeout=limit, allow_redirects=False) as response:
                reply = orjson.loads(await read_body(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SandboxError(f"the ToolServer does not answer: {type(error).__name__}") from error
        if not isinstance(reply, dict) or response.status != 200:
            what = str(reply.get("error", ""))[:500] if isinstance(reply, dict) else ""
            raise SandboxError(f"the ToolServer refused ({response.status}): {what}")
        return reply
