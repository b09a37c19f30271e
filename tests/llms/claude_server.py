"""Claude's Messages API on loopback: it checks requests as the API does, and answers with blocks that a test scripts.

Shapes and refusals are those of the API reference and of the SDK's own types (version 2): the events of a stream, the
order that tool results must have, texts that may not be empty, thinking whose signature must be the one it came with.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from aiohttp import web

KEYS = ("sk-ant-api03-secret-one", "sk-ant-api03-secret-two")
KNOWN = frozenset(
    "model messages max_tokens system tools tool_choice stop_sequences stream temperature top_p top_k thinking "
    "metadata service_tier output_config container context_management cache_control".split()
)

Reply = Callable[[dict[str, Any]], Any] | list[dict[str, Any]] | dict[str, Any]


class Refused(Exception):
    """A request that the API refuses."""

    def __init__(self, message: str, status: int = 400, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


def error(status: int, kind: str, message: str = "no", **headers: str) -> Callable[[Any], web.Response]:
    """An answer that is an error, in the API's form."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.json_response(body, status=status, headers=told)


def signature(thinking: str) -> str:
    """What the server signs a thought with."""
    return hashlib.sha256(b"secret" + thinking.encode()).hexdigest()


def thought(text: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": signature(text)}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def use(name: str, id_: str = "toolu_1", **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": name, "input": given}


class ClaudeServer:
    """Answers the n-th request with the n-th reply, and every further one with the last.

    A reply is a list of content blocks, a whole message's fields (`content`, `stop_reason`, `usage`), or a function of
    the request's body that gives one of these, or a response.

    Attributes:
        bodies, headers: of the requests, as they came in.
        aborted: how many requests were given up because their client went away.
        delay: seconds before an answer begins.
    """

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies) or [[text("hello")]]
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.aborted = 0
        self.delay = 0.0

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 * 2**20)
        app.router.add_post("/v1/messages", self._messages)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *failed: object) -> None:
        await self._runner.cleanup()

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.headers.append(request.headers)
        self.bodies.append(body)
        reply = self.replies[min(len(self.bodies), len(self.replies)) - 1]
        try:
            check(body, request.headers)
            await asyncio.sleep(self.delay)
        except Refused as refused:
            return error(refused.status, refused.kind, str(refused))(body)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        if callable(reply):
            reply = reply(body)
        if isinstance(reply, web.Response):
            return reply
        message = whole(body, reply)
        if not body.get("stream"):
            return web.json_response(message, headers={"request-id": "req_1"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for event in events(message):
            await response.write(event)
        return response


def whole(body: dict[str, Any], reply: Any) -> dict[str, Any]:
    """The message that a reply stands for."""
    fields = reply if isinstance(reply, dict) else {"content": reply}
    calls = any(block["type"] == "tool_use" for block in fields["content"])
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 5,
            "service_tier": "standard",
        },
        **fields,
    }


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n".encode()


def events(message: dict[str, Any], size: int = 4) -> list[bytes]:
    """The events that stream a message, as the API sends them."""
    usage = message["usage"]
    begun = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    told = [event("message_start", message=begun)]
    for index, block in enumerate(message["content"]):
        empty, deltas = _grown(block, size)
        told.append(event("content_block_start", index=index, content_block=empty))
        if index == 0:
            told.append(event("ping"))
        told += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        told.append(event("content_block_stop", index=index))
    end = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    told.append(event("message_delta", delta=end, usage={"output_tokens": usage["output_tokens"]}))
    return [*told, event("message_stop")]


def _grown(block: dict[str, Any], size: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it begins, and what makes it grow."""
    kind = block["type"]
    if kind == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"], size)]
        deltas += [{"type": "citations_delta", "citation": citation} for citation in block.get("citations", ())]
        return {**block, "text": "", **({"citations": []} if "citations" in block else {})}, deltas
    if kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"], size)]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {**block, "thinking": "", "signature": ""}, deltas
    if kind in ("tool_use", "server_tool_use"):
        written = json.dumps(block["input"]) if block["input"] else ""
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *_pieces(written, size)]]
        return {**block, "input": {}}, deltas
    return block, []  # redacted thinking and the results of the API's tools come whole


def _pieces(written: str, size: int) -> list[str]:
    return [written[start : start + size] for start in range(0, len(written), size)]


# What the API asks of a request


def check(body: dict[str, Any], headers: Any) -> None:
    """Refuse what the API refuses.

    Raises:
        Refused: with the API's own words.
    """
    key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    if key not in KEYS:
        raise Refused("invalid x-api-key", 401, "authentication_error")
    if not headers.get("anthropic-version"):
        raise Refused("anthropic-version: header is required")
    for name in ("model", "messages", "max_tokens"):
        if name not in body:
            raise Refused(f"{name}: Field required")
    unknown = sorted(body.keys() - KNOWN)
    if unknown:
        raise Refused(f"{unknown[0]}: Extra inputs are not permitted")
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled" and thinking["budget_tokens"] >= body["max_tokens"]:
        raise Refused("`max_tokens` must be greater than `thinking.budget_tokens`.")
    for tool in body.get("tools", ()):
        if "type" not in tool and tool["input_schema"]["type"] != "object":
            raise Refused("tools.0.custom.input_schema.type: Field required")
    marks = json.dumps(body).count('"cache_control"')
    if marks > 4:
        raise Refused(f"A maximum of 4 blocks with cache_control may be provided. Found {marks}.")
    for block in body.get("system", ()):
        _check_text(block)
    _check_turns(body["messages"], thinks=thinking.get("type") in ("enabled", "adaptive"))


def _check_turns(turns: list[dict[str, Any]], thinks: bool) -> None:
    if not turns:
        raise Refused("messages: at least one message is required")
    open_calls: list[str] = []
    for place, turn in enumerate(turns):
        if turn["role"] != ("assistant" if place % 2 else "user"):
            raise Refused(f"messages.{place}: roles must alternate")
        kinds = [block["type"] for block in turn["content"]]
        if "tool_result" in kinds and kinds != sorted(kinds, key=lambda kind: kind != "tool_result"):
            raise Refused(f"messages.{place}: `tool_result` blocks must come first")
        answered = [block["tool_use_id"] for block in turn["content"] if block["type"] == "tool_result"]
        if sorted(answered) != sorted(open_calls):
            raise Refused(f"messages.{place}: `tool_use` ids were found without `tool_result` blocks: {open_calls}")
        if not answered and place and turn["role"] == "user":
            _check_own_tools(turns[place - 1]["content"], place - 1)
        open_calls = [block["id"] for block in turn["content"] if block["type"] == "tool_use"]
        if thinks and open_calls and kinds[0] not in ("thinking", "redacted_thinking"):
            raise Refused(
                f"messages.{place}.content.0.type: Expected `thinking` or `redacted_thinking`, but found {kinds}"
            )
        for block in turn["content"]:
            _check_block(block)
    if turns[-1]["role"] == "assistant" and turns[-1]["content"][-1].get("text", "").endswith(" "):
        raise Refused("messages: final assistant content cannot end with trailing whitespace")


def _check_own_tools(blocks: list[dict[str, Any]], place: int) -> None:
    done = {block["tool_use_id"] for block in blocks if block["type"].endswith("_tool_result")}
    for block in blocks:
        if block["type"] == "server_tool_use" and block["id"] not in done:
            raise Refused(
                f"messages.{place}: `{block['name']}` tool use with id `{block['id']}` was found without a "
                f"corresponding `{block['name']}_tool_result` block"
            )


def _check_block(block: dict[str, Any]) -> None:
    if block["type"] == "text":
        _check_text(block)
    elif block["type"] == "thinking" and block["signature"] != signature(block["thinking"]):
        raise Refused("Invalid `signature` in `thinking` block")
    elif block["type"] == "tool_use" and not isinstance(block["input"], dict):
        raise Refused("tool_use.input: Input should be a valid dictionary")
    elif block["type"] == "tool_result":
        for part in block.get("content", ()):
            _check_block(part)
    elif block["type"] == "image_url":
        raise Refused("content: Input tag 'image_url' found using 'type' does not match any of the expected tags")


def _check_text(block: dict[str, Any]) -> None:
    if not block["text"].strip():
        raise Refused("messages: text content blocks must be non-empty")


async def drained(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]
