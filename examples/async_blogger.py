"""Writers and critics: five sessions of one agent, side by side."""

import asyncio
from typing import Any

from lagentlike.agents import AsyncAgent
from lagentlike.hooks import Hook
from lagentlike.llms import AsyncTinyLM
from lagentlike.schema import AgentMessage


class PrefixedMessageHook(Hook):
    """Puts a text before the messages of some senders."""

    def __init__(self, prefix: str, senders: list[str]) -> None:
        self.prefix = prefix
        self.senders = senders

    def before_agent(self, agent: Any, messages: tuple[AgentMessage, ...], session_id: Any) -> None:
        for message in messages:
            if message.sender in self.senders:
                message.content = self.prefix + message.content


class AsyncBlogger(AsyncAgent):
    """A writer that revises its text as a critic says."""

    def __init__(self, writer_prompt: str, critic_prompt: str, critic_prefix: str = "", max_turn: int = 2) -> None:
        super().__init__()
        llm = AsyncTinyLM()
        self.writer = AsyncAgent(llm, writer_prompt, name="writer")
        self.critic = AsyncAgent(
            llm, critic_prompt, name="critic", hooks=[PrefixedMessageHook(critic_prefix, ["writer"])]
        )
        self.max_turn = max_turn

    async def forward(self, message: AgentMessage, session_id: int = 0) -> AgentMessage:
        for _ in range(self.max_turn):
            message = await self.writer(message, session_id=session_id)
            message = await self.critic(message, session_id=session_id)
        message = await self.writer(message, session_id=session_id)
        return message


blogger = AsyncBlogger(
    writer_prompt="You are an writing assistant tasked to write engaging blogpost. You try to generate the best "
    "possible for the user's request. If the user provides critique, then respond with a revised version of your "
    "previous attempts",
    critic_prompt="Generate critique and recommendations on the writing. Provide detailed recommendations, including "
    "requests for length, depth, style, etc...",
    critic_prefix="Reflect and provide critique on the following writing. \n\n",
)
request = (
    "Write an engaging blogpost on the recent updates in {topic}. "
    "The blogpost should be engaging and understandable for general audience. "
    "Should have more than 3 paragraphs but no longer than 1000 words."
)
topics = ["AI", "Biotechnology", "New Energy", "Video Games", "Pop Music"]

replies = asyncio.run(blogger.map([request.format(topic=topic) for topic in topics], progress=True))
for topic, reply in zip(topics, replies, strict=True):
    assert isinstance(reply, AgentMessage), reply
    print(f"== {topic}\n{reply.content}\n")
print(blogger.summary())
