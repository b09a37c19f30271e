"""A coder: the model writes Python, a live Jupyter kernel runs it, the model reads the output."""

from lagentlike.actions import ActionExecutor, IPythonInterpreter
from lagentlike.agents import Agent
from lagentlike.agents.aggregator import InternLMToolAggregator
from lagentlike.hooks import InternLMActionProcessor
from lagentlike.llms import TinyLM
from lagentlike.prompts.parsers import ToolParser
from lagentlike.schema import AgentMessage


class Coder(Agent):
    """Writes code, has it run, and answers from what it prints."""

    def __init__(self, system_prompt: str, max_turn: int = 3) -> None:
        super().__init__()
        self.agent = Agent(
            TinyLM(stop_words=["\n```\n"]),
            system_prompt,
            output_format=ToolParser("code interpreter", begin="```python\n", end="\n```\n"),
            aggregator=InternLMToolAggregator(),
        )
        self.executor = ActionExecutor([IPythonInterpreter()], hooks=[InternLMActionProcessor()])
        self.max_turn = max_turn

    def forward(self, message: AgentMessage, session_id: int = 0) -> AgentMessage:
        for _ in range(self.max_turn):
            message = self.agent(message, session_id=session_id)
            if message.formatted["tool_type"] is None:
                break
            message = self.executor(message, session_id=session_id)
        return message


coder = Coder("Solve the problem step by step with assistance of Python code")
print(coder("What is the sum of the numbers from 1 to 50?").content)
print("-" * 60)
for message in coder.state_dict()["agent.memory"]:
    print(f"{message['sender']}: {message['content']}")
