"""Lagent as released, in an environment of its own; it has no native tools, so it speaks its own text format."""

from __future__ import annotations

from typing import Any

from lagent.actions import BaseAction
from lagent.agents import AsyncAgent, AsyncStreamingAgent
from lagent.agents.react import AsyncReAct
from lagent.hooks import Hook
from lagent.llms import AsyncGPTAPI
from lagent.prompts.parsers.json_parser import JSONParser
from lagent.prompts.prompt_template import PromptTemplate
from lagent.schema import AgentMessage
from pydantic import BaseModel, Field

from benchmarks import workloads as w

TOOL_FORMAT = "react"


class Client:
    """The agents of Lagent that the tutorial of Lagent would use."""

    def __init__(self, address: str) -> None:
        llm = AsyncGPTAPI(model_type=w.MODEL, key=w.KEY, api_base=address, max_new_tokens=w.MAX_TOKENS)
        self.agent = AsyncAgent(llm, w.SYSTEM_PROMPT)
        self.streaming = AsyncStreamingAgent(llm, w.SYSTEM_PROMPT)
        self.react = AsyncReAct(
            llm,
            actions=[Multiply()],
            template=PromptTemplate("{action_info}\n{output_format}"),
            output_format=JSONParser("{function_format}\n{finish_format}", function_format=Call, finish_format=Finish),
        )
        self.blogger = AsyncBlogger(llm)

    async def turn(self, session_id: int, text: str) -> str:
        return str((await self.agent(text, session_id=session_id)).content)

    async def tool_session(self, session_id: int, question: str) -> str:
        return str((await self.react(question, session_id=session_id)).formatted["conclusion"])

    async def stream(self, session_id: int, text: str) -> str:
        answer = ""
        async for message in self.streaming(text, session_id=session_id):
            answer = message.content
        return answer

    async def refine(self, session_id: int, request: str) -> str:
        return str((await self.blogger(AgentMessage(sender="user", content=request), session_id=session_id)).content)

    async def close(self) -> None:
        """Nothing to close: Lagent opens a new HTTP session for every request."""


class Multiply(BaseAction):
    """Multiply two whole numbers."""

    def run(self, a: int, b: int) -> int:
        """Multiply two whole numbers.

        Args:
            a (int): one factor
            b (int): the other
        """
        return a * b


class ActionCall(BaseModel):
    name: str = Field(description="the tool")
    parameters: dict[str, int] = Field(description="its arguments")


class Call(BaseModel):
    thought_process: str = Field(description="what is known")
    action: ActionCall = Field(description="what to do now")


class Finish(BaseModel):
    thought_process: str = Field(description="what is known")
    conclusion: str = Field(description="the answer")


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
