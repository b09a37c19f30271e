"""A model that reasons and acts in plain text: Thought, Action, Action Input, Observation."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any, ClassVar

from ...prompts.parsers.tool_call import loads_strictly
from ...schema import AgentMessage, ToolCall
from .hf import HFAgent

__all__ = ["ReactAgent", "parse_react"]

_PROMPT = """Answer the question. You have these tools:
{tools}

Write a thought, and then, to use a tool, its name and its arguments as JSON:
Thought: what to do next
Action: the tool's name
Action Input: {{"argument": "value"}}

You are then told what it returned as an Observation. When you know the answer, write:
Thought: I know the answer
Final Answer: the answer"""


class ReactAgent(HFAgent):
    """A model that reasons and acts in plain text, for models without tool calls of their own.

    The protocol is that of ReAct (Yao et al., 2022, https://arxiv.org/abs/2210.03629): the tools are told in the system
    prompt, and their results come back as observations in a user message. Arguments as for `HFAgent`.
    """

    offers_tools: ClassVar[bool] = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"tool_parser": parse_react, **options})

    def _system(self, system_prompt: str | None) -> str:
        listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in self.actions.tools())
        asked = _PROMPT.format(tools=listed or "none")
        return f"{system_prompt}\n\n{asked}" if system_prompt else asked

    def _results(self, results: AgentMessage) -> AgentMessage:
        return AgentMessage(
            content="\n".join(f"Observation: {result.text}" for result in results.tool_results or ()),
            sender=results.sender,
        )


def parse_react(text: str) -> list[ToolCall]:
    """The calls in a text, `Action:` and `Action Input:` each; none once it says `Final Answer:`.

    Whatever the model wrote, nothing is raised: an input that is no JSON object is the call's argument as text, and
    the executor tells the model.

    >>> [call] = parse_react('Thought: add\\nAction: calculator\\nAction Input: {"expression": "1 + 1"}')
    >>> call.name, call.arguments
    ('calculator', {'expression': '1 + 1'})
    """
    before = text.split("\nFinal Answer:")[0]
    if before.startswith("Final Answer:"):
        return []
    calls = []
    for found in _ACTION.finditer(before):
        given: Any = found.group(2).strip()
        try:
            read = loads_strictly(given)
        except ValueError:
            read = None
        arguments = read if isinstance(read, dict) else given
        calls.append(ToolCall(found.group(1), arguments, found.group(0), f"call_{uuid.uuid4().hex[:24]}"))
    return calls


_ACTION = re.compile(r"^Action: *([\w.-]{1,64})[ \t]*\nAction Input:([^\n]*)", re.MULTILINE)
