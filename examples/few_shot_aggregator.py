"""An aggregator decides what a model is sent: here, examples before the conversation."""

from typing import Any

from lagentlike import Agent, Memory, TinyLM
from lagentlike.agents.aggregator import DefaultAggregator
from lagentlike.prompts import StrParser


class FewshotAggregator(DefaultAggregator):
    """Puts examples between the system prompt and the conversation."""

    def __init__(self, few_shot: list[dict[str, Any]]) -> None:
        self.few_shot = few_shot

    def aggregate(
        self, messages: Memory, name: str, parser: StrParser | None = None, system_instruction: Any = None
    ) -> list[dict[str, Any]]:
        system: list[dict[str, Any]] = []
        if system_instruction:
            system = self.aggregate_system_instruction(system_instruction)
        return [*system, *self.few_shot, *super().aggregate(messages, name, parser)]


agent = Agent(
    TinyLM(),
    aggregator=FewshotAggregator(
        [
            {"role": "user", "content": "今天天气"},
            {"role": "assistant", "content": "【晴】"},
        ]
    ),
)
print(agent("昨天天气").content)
