"""Our agents, written as the documentation writes them."""

from __future__ import annotations

from typing import Any

from benchmarks import workloads as w
from lagentlike.actions import tool
from lagentlike.agents import AsyncAgent, AsyncReAct, AsyncStreamingAgent
from lagentlike.hooks import Hook
from lagentlike.llms import AsyncGPTAPI
from lagentlike.schema import AgentMessage

TOOL_FORMAT = "tools"


@tool
async def multiply(a: int, b: int) -> int:
    """Multiply two whole numbers."""
    return a * b


class Client:
    """An agent for each kind of work, one model between them."""

    def __init__(self, address: str) -> None:
        self.llm = AsyncGPTAPI(model_type=w.MODEL, key=w.KEY, api_base=address, max_new_tokens=w.MAX_TOKENS)
        self.agent = AsyncAgent(self.llm, w.SYSTEM_PROMPT)
        self.streaming = AsyncStreamingAgent(self.llm, w.SYSTEM_PROMPT)
        self.react = AsyncReAct(self.llm, actions=[multiply], template=w.SYSTEM_PROMPT)
        self.blogger = AsyncBlogger(self.llm)

    async def turn(self, session_id: int, text: str) -> str:
        return str((await self.agent(text, session_id=session_id)).content)

    async def tool_session(self, session_id: int, question: str) -> str:
        return str((await self.react(question, session_id=session_id)).content)

    async def stream(self, session_id: int, text: str) -> str:
        answer = ""
        async for message in self.streaming(text, session_id=session_id):
            answer = message.content
        return answer

    async def refine(self, session_id: int, request: str) -> str:
        return str((await self.blogger(AgentMessage(sender="user", content=request), session_id=session_id)).content)

    async def close(self) -> None:
        await self.llm.aclose()


class PrefixedMessageHook(Hook):
    """Put a prefix before the messages of some senders."""

    def __init__(self, prefix: str, senders: list[str]) -> None:
        self.prefix = prefix
        self.senders = senders

    def before_agent(self, agent: Any, messages: list[AgentMessage], session_id: int) -> None:
        for message in messages:
            if message.sender in self.senders:
                message.content = self.prefix + message.content


class AsyncBlogger(AsyncAgent):
    """A writer and a critic."""

    def __init__(self, llm: AsyncGPTAPI) -> None:
        super().__init__()
        self.writer = AsyncAgent(llm, w.WRITER_PROMPT, name="writer")
        hook = PrefixedMessageHook(w.CRITIC_PREFIX, ["writer"])
        self.critic = AsyncAgent(llm, w.CRITIC_PROMPT, name="critic", hooks=[hook])

    async def forward(self, message: AgentMessage, session_id: int = 0) -> AgentMessage:
        for _ in range(w.BLOG_ROUNDS):
            message = await self.writer(message, session_id=session_id)
            message = await self.critic(message, session_id=session_id)
        return await self.writer(message, session_id=session_id)
