"""Ollama's `/api/chat` on loopback: shapes as in its `api/types.go` and its Python client, over scripted replies."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, Self

from aiohttp import web

FIGURES = {
    "total_duration": 5191566416,
    "load_duration": 2154458,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 383809000,
    "eval_count": 7,
    "eval_duration": 4799921000,
}


class OllamaServer:
    """Answers the n-th request with the n-th reply, and every further one with the last.

    A reply is an assistant's message (`content`, `thinking`, `tool_calls`), with `done_reason` or `logprobs` beside it
    where they matter; or `{"error": …, "status": …}`, which comes within a stream where there is no status.

    Attributes:
        bodies: the requests, as they came in.
        aborted: how many requests were given up because their client went away.
        delay: seconds before an answer begins.
    """

    def __init__(self, *replies: dict[str, Any]) -> None:
        self.replies = list(replies) or [{"content": "hello"}]
        self.bodies: list[dict[str, Any]] = []
        self.aborted = 0
        self.delay = 0.0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/api/chat", self._chat)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *failed: object) -> None:
        await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.bodies.append(body)
        reply = dict(self.replies[min(len(self.bodies), len(self.replies)) - 1])
        wrong = refusal(body)
        if wrong is not None:
            return web.json_response({"error": wrong[1]}, status=wrong[0])
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        if "status" in reply:
            return web.json_response({"error": reply["error"]}, status=reply["status"])
        head = {"model": body["model"], "created_at": "2026-11-01T12:00:00.123456Z"}
        if not body.get("stream", True):
            last = {"done": True, "done_reason": reply.pop("done_reason", "stop"), **FIGURES}
            logprobs = {"logprobs": reply.pop("logprobs")} if "logprobs" in reply else {}
            message = {"role": "assistant", "content": "", **reply}
            return web.json_response({**head, "message": message, **logprobs, **last})
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for line in lines(reply):
            await response.write(json.dumps({**head, **line}).encode() + b"\n")
        return response


def lines(reply: dict[str, Any], size: int = 4) -> list[dict[str, Any]]:
    """The lines that stream a reply: thinking first, each call whole, and at last the figures."""
    told = []
    for name in ("thinking", "content"):
        text = reply.get(name, "")
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        told += [{"role": "assistant", "content": "", name: piece} for piece in pieces]
    told += [{"role": "assistant", "content": "", "tool_calls": [call]} for call in reply.get("tool_calls", ())]
    made: list[dict[str, Any]] = [{"message": message, "done": False} for message in told]
    for line, step in zip(made, reply.get("logprobs", ()), strict=False):
        line["logprobs"] = [step]
    if "error" in reply:
        return [*made, {"error": reply["error"]}]
    end = {"role": "assistant", "content": ""}
    return [*made, {"message": end, "done": True, "done_reason": reply.get("done_reason", "stop"), **FIGURES}]


def refusal(body: dict[str, Any]) -> tuple[int, str] | None:
    """The status and the words with which Ollama refuses a request."""
    if body["model"] == "missing":
        return 404, 'model "missing" not found, try pulling it first'
    for message in body["messages"]:
        if not isinstance(message.get("content"), str):
            return 400, "json: cannot unmarshal array into Go struct field ChatRequest.messages of type string"
        for image in message.get("images", ()):
            base64.b64decode(image, validate=True)
        for call in message.get("tool_calls", ()):
            if not isinstance(call["function"]["arguments"], dict):
                return 400, "json: cannot unmarshal string into Go struct field ToolCallFunction.arguments"
    return None
