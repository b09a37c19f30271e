"""Tools of MCP servers: programs of this machine, or services behind a URL."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any, Self

from pydantic import ValidationError

from ..concurrency import run_in_background
from ..errors import InvalidArgument, MissingExtra, ToolError
from ..schema import ActionReturn, ActionStatusCode
from .base import _Options, BaseAction, ToolAPI
from .function import checked_timeout
from .running import on_background
from .schema import ToolSchema
from .toolsets import Toolset

__all__ = ["MCPServer", "MCPTool"]

logger = logging.getLogger(__name__)


class MCPServer:
    """An MCP server, whose tools become tools of an executor.

    Give `command`, for a program that is started and spoken to over its stdin and stdout, or `url`, for a service that
    speaks streamable HTTP. It is connected to when its tools are first asked for. A server that has died is started, or
    connected to, again by the next call; a call that was under way fails and says so, and is not made twice.

    It ends with `close()`, as a context manager of either kind, when neither it nor its tools are used any more, and
    with the process. Arguments, environment variables and headers are never shown: they may hold keys.

    Args:
        command: the program.
        args: its arguments.
        env: environment variables for it, besides `PATH`, `HOME` and the like; nothing else is passed on.
        cwd: where it runs.
        url: the service's endpoint, such as `http://127.0.0.1:8000/mcp`.
        headers: HTTP headers, such as `Authorization`.
        prefix: put before the names of its tools, to tell those of several servers apart.
        timeout: seconds that a call may take.
        connect_timeout: seconds until it must be ready.

    Raises:
        InvalidArgument: it is neither of the two, or both.

    >>> MCPServer("uvx", ["mcp-server-git", "--token", "hush"])
    MCPServer(command='uvx')
    """

    def __init__(
        self,
        command: str | None = None,
        args: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
        prefix: str = "",
        timeout: float = 60,
        connect_timeout: float = 30,
    ) -> None:
        if (command is None) == (url is None):
            raise InvalidArgument("command", command, "give the command of a program, or the url of a service")
        if url is not None and not url.startswith(("http://", "https://")):
            raise InvalidArgument("url", _without_secrets(url), "give one that starts with http:// or https://")
        if isinstance(args, str):
            raise InvalidArgument("args", "…", "give a list of texts")
        seconds, patience = checked_timeout(timeout), checked_timeout(connect_timeout)
        if seconds is None or patience is None:
            raise InvalidArgument("timeout, connect_timeout", (timeout, connect_timeout), "give seconds")
        self.command = command
        self.url = None if url is None else _without_secrets(url)
        self.prefix = prefix
        self.timeout = seconds
        self._wire = _Wire(command, list(args), dict(env or {}), cwd, url, dict(headers or {}), patience)
        weakref.finalize(self._wire, _close_later, self._wire.state)

    def tools(self) -> list[MCPTool]:
        """Its tools; it is connected to first.

        Raises:
            MissingExtra: the package `mcp` is not installed.
            ToolError: it cannot be started or reached.
        """
        return self._made(run_in_background(self._wire.listed()))

    async def atools(self) -> list[MCPTool]:
        """Its tools, awaited; see `tools`."""
        return self._made(await on_background(self._wire.listed()))

    def toolset(self, name: str, description: str | None = None) -> Toolset:
        """Its tools as a toolset, for `register_toolset`; it is left out where the server cannot be reached."""
        return Toolset(
            name, description or f"Tools of the MCP server {name}.", [self.tools], available=self.unavailable
        )

    def unavailable(self) -> str | None:
        """Why it cannot be used; None if it can."""
        try:
            self.tools()
        except (ToolError, MissingExtra) as error:
            return str(error)
        return None

    def close(self) -> None:
        """End the connection, and the program if there is one. A later call begins anew."""
        run_in_background(self._wire.close())

    async def aclose(self) -> None:
        """End the connection, awaited; see `close`."""
        await on_background(self._wire.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"MCPServer(command={self.command!r})" if self.command is not None else f"MCPServer(url={self.url!r})"

    def _made(self, listed: Sequence[Any]) -> list[MCPTool]:
        tools: dict[str, MCPTool] = {}
        for one in listed:
            name = given = _name(self.prefix + one.name)
            number = 1
            while name in tools:
                number += 1
                name = f"{given[:60]}_{number}"
            tools[name] = MCPTool(self, one, name)
        return list(tools.values())


class MCPTool(BaseAction):
    """A tool of an MCP server, called under its own name, or under one of letters that models can write.

    Args:
        server: where it is.
        listed: what the server tells of it: a `mcp.Tool`.
        name: its name here.
    """

    def __init__(self, server: MCPServer, listed: Any, name: str) -> None:
        super().__init__(listed.description or listed.title or "", name)
        self.remote_name: str = listed.name
        self.timeout = server.timeout
        hints = listed.annotations
        self.read_only = bool(hints is not None and hints.read_only_hint)
        self._server = server
        self._parameters: dict[str, Any] = listed.input_schema

    def apis(self) -> dict[str, ToolAPI]:
        if self._known_apis is None:
            wire, remote_name, seconds = self._server._wire, self.remote_name, self._server.timeout

            async def call(**arguments: Any) -> ActionReturn:
                return _returned(await on_background(wire.call(remote_name, arguments, seconds)))

            schema = _GivenSchema(call, self.name, str(self._described), self._parameters)
            self._known_apis = {"run": ToolAPI(self, "run", call, _Options(), schema)}
        return self._known_apis


class _GivenSchema(ToolSchema):
    """What a server says of its tool, as it says it; it checks the arguments itself."""

    def __init__(self, function: Any, name: str, description: str, parameters: Mapping[str, Any]) -> None:
        super().__init__(function, name, description=description)
        properties = {  # the schema `true` is another way to write `{}`
            name: schema if isinstance(schema, Mapping) else {}
            for name, schema in (parameters.get("properties") or {}).items()
        }
        self._given = {"type": "object", **parameters, "properties": properties}
        if not self._given.get("required"):
            self._given.pop("required", None)  # it may be null

    @cached_property
    def parameters(self) -> dict[str, Any]:
        return self._given


class _Wire:
    """The connection to a server; its coroutines run on the background loop."""

    def __init__(
        self,
        command: str | None,
        args: list[str],
        env: dict[str, str],
        cwd: str | os.PathLike[str] | None,
        url: str | None,
        headers: dict[str, str],
        patience: float,
    ) -> None:
        self._program = (command, args, env, cwd)
        self._service = (url, headers)
        self._patience = patience
        self.state = _State()

    async def listed(self) -> list[Any]:
        """The tools that the server lists, page by page."""
        line = await self._line()
        found: list[Any] = []
        cursor = None
        for _ in range(_MAX_PAGES):
            page = await self._asked(line, line.client.list_tools(cursor=cursor, cache_mode="refresh"), self._patience)
            found += page.tools
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise ToolError(f"the MCP server lists its tools on more than {_MAX_PAGES} pages")

    async def call(self, name: str, arguments: dict[str, Any], seconds: float) -> Any:
        """Call a tool: a `mcp.types.CallToolResult`.

        Raises:
            ToolError: the server refuses the call, dies over it, or takes too long.
        """
        line = await self._line()
        return await self._asked(line, line.client.call_tool(name, arguments, read_timeout_seconds=seconds), seconds)

    async def close(self) -> None:
        line, self.state.line = self.state.line, None
        if line is not None:
            await line.end()

    async def _line(self) -> _Line:
        """The line to the server, opened if there is none or it has broken."""
        if self.state.owner != os.getpid():  # forked: the line is the parent's
            self.state.__init__()  # type: ignore[misc]
        async with self.state.opening:
            line = self.state.line
            if line is None or line.is_broken:
                if line is not None:
                    await line.end()
                    logger.info("an MCP server is connected to again: its line was broken")
                self.state.line = None
                self.state.line = line = _Line(self._client)
                await line.opened(self._patience)
        return line

    async def _asked(self, line: _Line, request: Any, seconds: float) -> Any:
        """What the server answers, as long as the line holds."""
        from mcp import MCPError

        asking = asyncio.ensure_future(request)
        try:
            await asyncio.wait([asking, line.task], timeout=seconds + 1, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and line.task.done():
                await asyncio.wait([asking], timeout=1)  # it may have been told why
            if not asking.done():
                what = "died during the call" if line.task.done() else f"did not answer within {seconds:g} seconds"
                raise ToolError(f"the MCP server {what}{line.said()}")
            return asking.result()
        except MCPError as error:
            if error.error.code == _TIMED_OUT:
                raise ToolError(f"the MCP server did not answer within {seconds:g} seconds") from None
            if error.error.code in _BROKEN or line.is_broken:
                line.broke()
                raise ToolError(
                    f"the MCP server died during the call ({error}); the next call starts it again{line.said()}"
                ) from None
            raise ToolError(f"the MCP server refused: {error}") from None
        except ValidationError as error:
            raise ToolError(f"the MCP server gave what is no answer: {' '.join(str(error).split())[:500]}") from None
        finally:
            asking.cancel()

    def _client(self, errors: Any, broken: asyncio.Event) -> Any:
        """A client of the package `mcp` that is not connected yet."""
        try:
            from mcp import StdioServerParameters
            from mcp.client.client import Client
            from mcp.client.stdio import stdio_client
            from mcp.client.streamable_http import streamable_http_client
            from mcp.shared._httpx_utils import create_mcp_http_client
        except ImportError:
            raise MissingExtra("mcp", "mcp") from None
        url, headers = self._service
        command, args, env, cwd = self._program  # and not self: what is open must not keep it alive

        @asynccontextmanager
        async def transport() -> Any:
            if url is not None:
                async with (
                    create_mcp_http_client(headers) as http,
                    streamable_http_client(url, http_client=http) as pair,
                ):
                    yield pair
                return
            program = StdioServerParameters(
                command=str(command), args=args, env=env, cwd=None if cwd is None else str(cwd)
            )
            async with stdio_client(program, errlog=errors) as (source, target):
                yield _Watched(source, broken), target

        return Client(transport(), read_timeout_seconds=self._patience)


class _State:
    """What there is of a connection now; apart from the wire, so that it can be ended when the wire is gone."""

    def __init__(self) -> None:
        self.line: _Line | None = None
        self.opening = asyncio.Lock()
        self.owner = os.getpid()


class _Line:
    """One connection, held open by one task, from its beginning to its end."""

    def __init__(self, make_client: Callable[[Any, asyncio.Event], Any]) -> None:
        self.client: Any = None
        self._broken = asyncio.Event()
        self._ready = asyncio.Event()
        self._said = ""
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # stderr of a program
        self.task = asyncio.ensure_future(self._hold(make_client(self._errors, self._broken)))

    @property
    def is_broken(self) -> bool:
        return self._broken.is_set() or self.task.done()

    def broke(self) -> None:
        """Take note that it is of no more use."""
        self._broken.set()

    async def opened(self, seconds: float) -> None:
        """Wait until it is.

        Raises:
            ToolError: it could not be opened.
        """
        ready = asyncio.ensure_future(self._ready.wait())
        try:
            await asyncio.wait([ready, self.task], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.broke()
            self.task.cancel()
            raise
        finally:
            ready.cancel()
        if self._ready.is_set() and not self.task.done():
            return
        if not self.task.done():
            self.broke()
            self.task.cancel()
            await asyncio.wait([self.task], timeout=_END_SECONDS)
            raise ToolError(f"the MCP server was not ready within {seconds:g} seconds{self.said()}")
        error = None if self.task.cancelled() else self.task.exception()
        raise ToolError(f"the MCP server cannot be used: {_reason(error)}{self.said()}") from None

    async def end(self) -> None:
        """Close it, and end the program."""
        self._broken.set()
        _, waiting = await asyncio.wait([self.task], timeout=_END_SECONDS)
        if waiting:
            self.task.cancel()
            await asyncio.wait([self.task], timeout=_END_SECONDS)

    def said(self) -> str:
        """The last of what the program wrote to stderr, for an error message."""
        if not self._errors.closed:
            self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(self._errors.tell() - 2000, 0))
            lines = [line for line in self._errors.read().splitlines() if line.strip()]
            self._said = f": {lines[-1].strip()[:500]}" if lines else ""
        return self._said

    async def _hold(self, client: Any) -> None:
        try:
            async with client as self.client:
                self._ready.set()
                await self._broken.wait()
        except Exception as error:
            if not self._ready.is_set():
                raise
            logger.info("the line to an MCP server broke: %s", _reason(error))
        finally:
            self.said()
            self._errors.close()


class _Watched:
    """A stream of messages that says when it ends: the server is gone then."""

    def __init__(self, source: Any, broken: asyncio.Event) -> None:
        self._source = source
        self._broken = broken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def receive(self) -> Any:
        try:
            return await self._source.receive()
        except Exception:
            self._broken.set()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._source.__anext__()
        except (Exception, StopAsyncIteration):
            self._broken.set()
            raise

    async def __aenter__(self) -> Self:
        await self._source.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> Any:
        return await self._source.__aexit__(*exception)


_END_SECONDS = 15.0
"""How long a server may take to end before the task that waits for it is cancelled."""

_MAX_PAGES = 1000
_TIMED_OUT = -32001
_BROKEN = frozenset({-32000, -32600})
"""Codes of a closed connection, and of a session that a service does not know any more."""


def _returned(result: Any) -> ActionReturn:
    """A `mcp.types.CallToolResult` as a tool's result: text, images, and what else there is as JSON."""
    items = [_item(block) for block in result.content]
    if not items and result.structured_content is not None:
        items = [{"type": "text", "content": _json(result.structured_content)}]
    if not items:
        items = [{"type": "text", "content": "(no output)"}]
    if not result.is_error:
        return ActionReturn(result=items)
    texts = [item["content"] for item in items if item["type"] == "text"]
    return ActionReturn(result=items, errmsg="\n".join(texts) or "it failed", state=ActionStatusCode.API_ERROR)


def _item(block: Any) -> dict[str, Any]:
    if block.type == "text":
        return {"type": "text", "content": block.text}
    if block.type in ("image", "audio"):
        return {"type": block.type, "content": f"data:{block.mime_type};base64,{block.data}"}
    if block.type == "resource" and getattr(block.resource, "text", None) is not None:
        return {"type": "text", "content": block.resource.text}
    dumped = block.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"type": "text", "content": _json(dumped)}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _name(name: str) -> str:
    """A name that models can call a tool by."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64] or "_"


def _without_secrets(url: str) -> str:
    """A URL without user, password and query, where keys are put."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])


def _reason(error: BaseException | None) -> str:
    """What went wrong first, in a group of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if error is not None and str(error) else type(error).__name__


def _close_later(state: _State) -> None:
    """End a connection that nobody can use any more."""
    line, state.line = state.line, None
    if line is not None and state.owner == os.getpid() and not line.task.done():
        line.task.get_loop().call_soon_threadsafe(line.broke)
