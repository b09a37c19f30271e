"""The agents of the demo, written as anybody would write them."""

from __future__ import annotations

from typing import Any

from ..actions import ActionExecutor, IPythonInterpreter
from ..agents import Agent, AsyncAgent
from ..aggregators import InternLMToolAggregator
from ..hooks import Hook, InternLMActionProcessor
from ..llms import AsyncBaseLLM, BaseLLM
from ..prompts.parsers import ToolParser
from ..schema import AgentMessage

__all__ = ["AsyncBlogger", "Coder", "PrefixedMessageHook", "REQUEST"]

REQUEST = "Write an engaging blogpost on the recent updates in {topic}."


class Coder(Agent):
    """Writes code, has it run, and answers from what it prints."""

    def __init__(self, llm: BaseLLM, work_dir: str, max_turn: int = 3) -> None:
        super().__init__()
        self.agent = Agent(
            llm,
            "Solve the problem step by step with assistance of Python code",
            output_format=ToolParser("code interpreter", begin="```python\n", end="\n```\n"),
            aggregator=InternLMToolAggregator(),
        )
        self.executor = ActionExecutor([IPythonInterpreter(work_dir=work_dir)], hooks=[InternLMActionProcessor()])
        self.max_turn = max_turn

    def forward(self, message: AgentMessage, session_id: Any = 0) -> AgentMessage:
        for _ in range(self.max_turn):
            message = self.agent(message, session_id=session_id)
            if message.formatted["tool_type"] is None:
                return message
            message = self.executor(message, session_id=session_id)
        return message


class PrefixedMessageHook(Hook):
    """Puts a text before the messages of some senders."""

    def __init__(self, prefix: str, senders: tuple[str, ...]) -> None:
        self.prefix = prefix
        self.senders = senders

    def before_agent(self, agent: Any, messages: tuple[AgentMessage, ...], session_id: Any) -> None:
        for message in messages:
            if message.sender in self.senders:
                message.content = self.prefix + message.content


class AsyncBlogger(AsyncAgent):
    """A writer that revises its text as a critic says."""

    def __init__(self, llm: AsyncBaseLLM, max_turn: int = 2) -> None:
        super().__init__()
        self.writer = AsyncAgent(
            llm,
            "You are an writing assistant tasked to write engaging blogpost. You try to generate the best possible for "
            "the user's request. If the user provides critique, then respond with a revised version of your previous "
            "attempts",
            name="writer",
        )
        self.critic = AsyncAgent(
            llm,
            "Generate critique and recommendations on the writing. Provide detailed recommendations, including "
            "requests for length, depth, style, etc...",
            name="critic",
            hooks=[PrefixedMessageHook("Reflect and provide critique on the following writing. \n\n", ("writer",))],
        )
        self.max_turn = max_turn

    async def forward(self, message: AgentMessage, session_id: Any = 0) -> AgentMessage:
        for _ in range(self.max_turn):
            message = await self.writer(message, session_id=session_id)
            message = await self.critic(message, session_id=session_id)
        message = await self.writer(message, session_id=session_id)
        return message
