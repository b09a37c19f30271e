"""Streaming: a model's chunks, and an agent's messages, as they come."""

import asyncio

from lagentlike import AsyncStreamingAgent, StreamingAgent
from lagentlike.llms import AsyncTinyLM, TinyLM
from lagentlike.schema import AgentStatusCode, ModelStatusCode

# A model gives out (status, new text, answer so far).
for status, chunk, _ in TinyLM().stream_chat([{"role": "user", "content": "Who are you?"}]):
    print(chunk, end="\n" if status == ModelStatusCode.END else "", flush=True)

# A streaming agent gives out messages; `content` is the answer so far, and the last one has END.
for message in StreamingAgent(TinyLM())("Hello"):
    if message.stream_state == AgentStatusCode.END:
        print(message.content)


async def main() -> None:
    """The same from async code."""
    agent = AsyncStreamingAgent(AsyncTinyLM())
    parts = [message.content async for message in agent("Thanks")]
    print(len(parts) > 1, parts[-1])


asyncio.run(main())
