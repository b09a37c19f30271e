"""A server on loopback that misbehaves on purpose, byte by byte."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


@dataclass
class Received:
    """One request as it came in."""

    at: float
    connection: int
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[[asyncio.StreamWriter, Received], Awaitable[None]]


@dataclass
class FaultServer:
    """Answers the n-th request with the n-th behaviour, and every further one with the last.

    `async with` runs it in the running event loop, `with` in a thread of its own.
    """

    behaviours: list[Behaviour] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    def __init__(self, *behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self.behaviours = list(behaviours)
        self.tls = tls
        self.requests: list[Received] = []
        self.connections = 0
        self.open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/v1"

    @property
    def gaps(self) -> list[float]:
        """Seconds between the requests."""
        times = [request.at for request in self.requests]
        return [later - earlier for earlier, later in pairwise(times)]

    async def __aenter__(self) -> FaultServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for _ in range(5):  # a connection that was only just accepted has no task yet
            await asyncio.sleep(0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __enter__(self) -> FaultServer:
        started = threading.Event()

        async def run() -> None:
            self._stop = asyncio.Event()
            self._loop = asyncio.get_running_loop()
            async with self:
                started.set()
                await self._stop.wait()

        self._thread = threading.Thread(target=asyncio.run, args=(run(),))
        self._thread.start()
        started.wait(5)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while (request := await self._read(reader, number)) is not None:
                index = len(self.requests)
                self.requests.append(request)
                await self.behaviours[min(index, len(self.behaviours) - 1)](writer, request)
                if writer.is_closing():
                    break
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()

    @staticmethod
    async def _read(reader: asyncio.StreamReader, connection: int) -> Received | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (item.partition(":") for item in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Received(time.monotonic(), connection, line, headers, body)


# Behaviours


def reply(body: Any = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> Behaviour:
    """A proper HTTP answer; a dict is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
    raw = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        writer.write(raw.encode() + content)

    return behave


def answer(text: str = "hello", **changes: Any) -> Behaviour:
    """A good answer, streamed if that was asked for."""

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        streamed = request.json.get("stream")
        await (events(stream_of(text, **changes)) if streamed else reply(completion(text, **changes)))(writer, request)

    return behave


def events(raw: bytes | Iterable[bytes], pause: float = 0.0, end: bool = True) -> Behaviour:
    """An event stream, sent as it is (in pieces with a pause before each further one); `end` closes the body."""
    pieces = [raw] if isinstance(raw, bytes) else list(raw)

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        writer.write(STREAM_HEAD)
        for number, piece in enumerate(pieces):
            if number and pause:
                await asyncio.sleep(pause)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if pause:
                await writer.drain()
        if end:
            writer.write(b"0\r\n\r\n")

    return behave


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def raw(data: bytes, then: Behaviour | None = None) -> Behaviour:
    """These bytes, then another behaviour (or the next request)."""

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        writer.write(data)
        await writer.drain()
        if then is not None:
            await then(writer, request)

    return behave


def drip(data: bytes, interval: float) -> Behaviour:
    """One byte at a time."""

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(interval)

    return behave


async def hang(writer: asyncio.StreamWriter, request: Received) -> None:
    """Nothing, for ever."""
    await asyncio.sleep(3600)


async def close(writer: asyncio.StreamWriter, request: Received) -> None:
    """Close the connection the regular way."""
    await writer.drain()
    writer.close()


async def reset(writer: asyncio.StreamWriter, request: Received) -> None:
    """Reset the connection."""
    await writer.drain()
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# Contents


def completion(text: str | None = "hello", **changes: Any) -> dict[str, Any]:
    """A chat completion; `message`, `choice` and all else given replace what is in it."""
    message = {"role": "assistant", "content": text, **changes.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **changes.pop("choice", {})}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "c1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage, **changes}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **changes: Any) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, **changes.pop("choice", {})}
    content = {"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **changes}
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


def stream_of(text: str, size: int = 3, finish: str = "stop", usage: bool = True, done: bool = True) -> bytes:
    """A whole stream that spells out a text."""
    parts = [chunk({"role": "assistant", "content": ""})]
    parts += [chunk({"content": text[start : start + size]}) for start in range(0, len(text), size)]
    parts.append(chunk(finish=finish))
    if usage:
        parts.append(chunk(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3}))
    return b"".join(parts) + (b"data: [DONE]\n\n" if done else b"")


def refuse(status: int, message: str = "no", **error: Any) -> Behaviour:
    """An error in OpenAI's form; `headers` are sent along."""
    headers = error.pop("headers", None)
    return reply({"error": {"message": message, "type": "t", "code": None, **error}}, status, headers)
