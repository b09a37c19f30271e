"""The bare minimum: `aiohttp` and `json`, with no framework between the loop and the wire."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from benchmarks import workloads as w

TOOL_FORMAT = "tools"
HEADERS = {"Authorization": f"Bearer {w.KEY}"}
NUMBER = {"type": "integer"}
TOOL = {
    "type": "function",
    "function": {
        "name": w.TOOL_NAME,
        "description": w.TOOL_DESCRIPTION,
        "parameters": {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]},
    },
}


class Client:
    """Lists of dicts, one HTTP session."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self.histories: dict[int, list[dict[str, Any]]] = {}

    async def turn(self, session_id: int, text: str) -> str:
        history = self.histories.setdefault(session_id, [_message("system", w.SYSTEM_PROMPT)])
        history.append(_message("user", text))
        reply = await self._chat(history)
        history.append(_message("assistant", reply["content"]))
        return str(reply["content"])

    async def tool_session(self, session_id: int, question: str) -> str:
        messages = [_message("system", w.SYSTEM_PROMPT), _message("user", question)]
        reply = await self._chat(messages, tools=[TOOL])
        while reply.get("tool_calls"):
            messages.append({"role": "assistant", "content": None, "tool_calls": reply["tool_calls"]})
            for call in reply["tool_calls"]:
                arguments = json.loads(call["function"]["arguments"])
                product = arguments["a"] * arguments["b"]
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": str(product)})
            reply = await self._chat(messages, tools=[TOOL])
        return str(reply["content"])

    async def stream(self, session_id: int, text: str) -> str:
        messages = [_message("system", w.SYSTEM_PROMPT), _message("user", text)]
        payload = {"model": w.MODEL, "messages": messages, "max_tokens": w.MAX_TOKENS, "stream": True}
        answer = ""
        async with self.session.post(self.address, json=payload, headers=HEADERS) as response:
            async for line in response.content:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                answer += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
        return answer

    async def refine(self, session_id: int, request: str) -> str:
        writer = [_message("system", w.WRITER_PROMPT)]
        critic = [_message("system", w.CRITIC_PROMPT)]
        text = request
        for _ in range(w.BLOG_ROUNDS):
            text = await self._say(writer, text)
            text = await self._say(critic, w.CRITIC_PREFIX + text)
        return await self._say(writer, text)

    async def close(self) -> None:
        await self.session.close()

    async def _say(self, history: list[dict[str, Any]], text: str) -> str:
        history.append(_message("user", text))
        reply = await self._chat(history)
        history.append(_message("assistant", reply["content"]))
        return str(reply["content"])

    async def _chat(self, messages: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        payload = {"model": w.MODEL, "messages": messages, "max_tokens": w.MAX_TOKENS, **options}
        async with self.session.post(self.address, json=payload, headers=HEADERS) as response:
            completion = await response.json()
        message: dict[str, Any] = completion["choices"][0]["message"]
        return message


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}
