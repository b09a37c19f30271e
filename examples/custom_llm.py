"""A model of your own: subclass BaseLLM, write one method; agents, budgets and streaming follow."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lagentlike import Agent, StreamingAgent
from lagentlike.llms import BaseLLM
from lagentlike.schema import Completion, Usage


class Echo(BaseLLM):
    """Says what it was told, backwards."""

    def _chat(self, messages: Sequence[Mapping[str, Any]], params: dict[str, Any]) -> Completion:
        words = str(messages[-1]["content"]).split()[: params["max_new_tokens"]]
        usage = Usage(requests=1, prompt_tokens=len(words), completion_tokens=len(words))
        return Completion(" ".join(reversed(words)), finish_reason="stop", usage=usage, model="echo")

    def _stream(
        self, messages: Sequence[Mapping[str, Any]], params: dict[str, Any]
    ) -> Iterator[tuple[str, Completion]]:
        answer = self._chat(messages, params)
        so_far = ""
        for word in answer.split(" "):
            so_far += word if not so_far else f" {word}"
            yield so_far[-len(word) :], Completion(so_far)
        yield "", answer


llm = Echo("echo", max_new_tokens=4)
print(Agent(llm)("units of one small house").content)
print([message.content for message in StreamingAgent(llm)("all is well")])
print(llm.usage)
