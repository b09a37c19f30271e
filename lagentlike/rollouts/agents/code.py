"""A model that answers by writing Python, which is run and whose output it reads."""

from __future__ import annotations

import re
import uuid
from typing import Any, ClassVar

from ...actions import IPythonInterpreter
from ...errors import InvalidArgument
from ...schema import AgentMessage, ToolCall
from .hf import HFAgent

__all__ = ["CodeAgent"]


class CodeAgent(HFAgent):
    """A model that answers by writing ```` ```python ```` blocks, which are run, and whose output it reads.

    Its one tool runs the code: `IPythonInterpreter` unless another is given, a Jupyter kernel for each chain, which
    runs with the rights of the user. Arguments as for `HFAgent`.
    """

    offers_tools: ClassVar[bool] = False

    def __init__(
        self,
        model_name_or_path: str = "tiny",
        tools: Any = None,
        *args: Any,
        system_prompt: str | None = None,
        **options: Any,
    ) -> None:
        tools = [IPythonInterpreter()] if tools is None else tools
        system_prompt = _PROMPT if system_prompt is None else system_prompt
        super().__init__(
            model_name_or_path, tools, *args, **{"system_prompt": system_prompt, "tool_parser": self._calls, **options}
        )
        names = [tool["function"] for tool in self.actions.tools()]
        if len(names) != 1 or len(names[0]["parameters"]["properties"]) < 1:
            raise InvalidArgument(
                "tools", tools, "give the one tool that runs the code, with the code as first argument"
            )
        self._tool = names[0]["name"]
        self._argument = next(iter(names[0]["parameters"]["properties"]))

    def _calls(self, text: str) -> list[ToolCall]:
        """The call of the interpreter with the first block of code in a text."""
        found = _BLOCK.search(text)
        if found is None:
            return []
        arguments = {self._argument: found.group(1)}
        return [ToolCall(self._tool, arguments, found.group(0), f"call_{uuid.uuid4().hex[:24]}")]

    def _results(self, results: AgentMessage) -> AgentMessage:
        return AgentMessage(
            content="\n".join(result.text for result in results.tool_results or ()), sender=results.sender
        )


_PROMPT = "Solve the problem step by step with assistance of Python code"
_BLOCK = re.compile(r"^```python[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL | re.MULTILINE)
