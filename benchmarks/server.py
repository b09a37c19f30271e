"""A local OpenAI-compatible server with canned answers, fast enough never to be what is measured.

The path of the address says how it answers, so one process serves every workload:
`http://127.0.0.1:PORT/[50ms/]plain/v1/chat/completions`, with `plain`, `tools`, `react` or `stream` as the behaviour.

Run by hand: `python -m benchmarks.server 8000`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os

from benchmarks.workloads import ANSWER, REPLY, STREAM_PIECES, TOOL_ARGUMENTS, TOOL_CLASS, TOOL_NAME

__all__ = ["serve", "start"]


async def start(port: int = 0) -> asyncio.Server:
    """Answer on loopback, at any free port unless one is given."""
    return await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port, backlog=1024)


async def serve(port: int = 0) -> None:
    """Answer until cancelled; the first line printed is the port."""
    async with await start(port) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


class _Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.body_start = 0  # 0 until the end of the headers is seen
        self.end = 0
        self.behaviour = ""
        self.delay = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"transport is {transport!r}: a stream transport is needed")
        self.transport = transport
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.body_start:
            self._read_head()
        if self.body_start and len(self.received) >= self.end:
            self._answer(bytes(self.received[self.body_start : self.end]))
            del self.received[: self.end]
            self.body_start = 0

    def _read_head(self) -> None:
        head_end = self.received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self.received[:head_end]).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        self.body_start = head_end + 4
        self.end = self.body_start + int(length or 0)
        steps = head.split(b" ", 2)[1].decode().strip("/").split("/")
        self.delay = float(steps.pop(0).removesuffix("ms")) / 1000 if steps[0].endswith("ms") else 0.0
        self.behaviour = steps[0]

    def _answer(self, body: bytes) -> None:
        response = RESPONSES[self.behaviour][body.count(b'"role"') > 2]
        if self.delay:
            self.loop.call_later(self.delay, self._send, response)
        else:
            self._send(response)

    def _send(self, response: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(response)


def _completion(message: dict[str, object], finish_reason: str) -> bytes:
    completion = {
        "id": "chatcmpl-000000000000000000000000",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-bench",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 57, "completion_tokens": 31, "total_tokens": 88},
        "system_fingerprint": "fp_000000000000",
    }
    body = json.dumps(completion).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _text(content: str) -> bytes:
    return _completion({"role": "assistant", "content": content, "refusal": None}, "stop")


def _tool_call() -> bytes:
    function = {"name": TOOL_NAME, "arguments": json.dumps(TOOL_ARGUMENTS)}
    call = {"id": "call_000000000000000000000000", "type": "function", "function": function}
    return _completion({"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}, "tool_calls")


def _event_stream() -> bytes:
    """All events in one write, each an HTTP chunk of its own."""
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": piece}, None) for piece in STREAM_PIECES]
    deltas += [({}, "stop")]
    events = [b"data: " + json.dumps(_chunk(*delta)).encode() + b"\n\n" for delta in deltas] + [b"data: [DONE]\n\n"]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\n\r\n"


def _chunk(delta: dict[str, str], finish_reason: str | None) -> dict[str, object]:
    return {
        "id": "chatcmpl-000000000000000000000000",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "gpt-bench",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }


_CALL_AS_TEXT = {"thought_process": "A product.", "action": {"name": TOOL_CLASS, "parameters": TOOL_ARGUMENTS}}
_ANSWER_AS_TEXT = {"thought_process": "The tool answered.", "conclusion": ANSWER}

# Behaviour -> (the answer to a conversation of at most two messages, the answer to a longer one).
RESPONSES = {
    "plain": (_text(REPLY), _text(REPLY)),
    "tools": (_tool_call(), _text(ANSWER)),
    "react": (_text(json.dumps(_CALL_AS_TEXT)), _text(json.dumps(_ANSWER_AS_TEXT))),
    "stream": (_event_stream(), _event_stream()),
}


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=serve.__doc__)
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("--cpu", type=int, help="run on this processor only")
    arguments = parser.parse_args()
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    asyncio.run(serve(arguments.port))


if __name__ == "__main__":
    main()
