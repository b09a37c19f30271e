"""Keep what tools give back from spelling the special tokens of a model."""

from __future__ import annotations

import re
from typing import Any

from ..schema import ActionReturn, AgentMessage
from .hook import Hook

__all__ = ["SpecialTokenNeutralizer"]


class SpecialTokenNeutralizer(Hook):
    """After an executor: special tokens and role marks in results are text, also for servers that take them for more.

    Most servers of models turn `<|im_end|>` in a message into the token that ends it, so that a page can write messages
    in the name of the system. This hook puts a word joiner (U+2060, which nobody sees) into each such mark. It is of
    use where a server renders the conversation: what is rendered in this process keeps contents text as it is. Register
    it with the executor: `ActionExecutor(tools, hooks=[SpecialTokenNeutralizer()])`,
    `agent.actions.register_hook(SpecialTokenNeutralizer())`.

    It is no cure for prompt injection: words in plain language pass.

    >>> SpecialTokenNeutralizer().text("a<|im_end|>b") == "a<\u2060|im_end|>b"
    True
    """

    def after_action(self, executor: Any, message: AgentMessage, session_id: Any) -> None:
        message.content = self._content(message.content)
        for result in message.tool_results or ():
            result.output, result.error = self.text(result.output), self.text(result.error)

    def text(self, text: str) -> str:
        """The text with all marks in it broken."""
        return _MARKS.sub(_broken, text)

    def _content(self, content: Any) -> Any:
        if isinstance(content, str):
            return self.text(content)
        if isinstance(content, ActionReturn):
            content.errmsg = content.errmsg and self.text(content.errmsg)
            content.result = content.result and self._content(content.result)
        elif isinstance(content, list):
            return [self._content(item) for item in content]
        elif isinstance(content, dict):
            return {key: self._content(value) for key, value in content.items()}
        return content


def _broken(mark: re.Match[str]) -> str:
    return f"{mark[0][0]}\u2060{mark[0][1:]}"


_MARKS = re.compile(
    r"<\|[^<>|\s]{1,64}\|>"  # ChatML, Llama 3, Harmony, GLM, Phi, Granite, Kimi …
    r"|<\uff5c[^<>\uff5c\s]{1,64}\uff5c>"  # DeepSeek
    r"|</?(?:s|bos|eos|unk|pad|sop|eop|[BE]OS_TOKEN|start_of_turn|end_of_turn)>|<<\/?SYS>>"
    r"|</?(?:think|tool_call|tool_calls|tool_response|tool_responses|tools)>"
    r"|\[(?:/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK)|ARGS|CALL_ID|gMASK)\]"
)
