"""The ChatML form of a conversation, with tools written as Qwen2.5 writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = [
    "CHAT_TEMPLATE",
    "DEFAULT_SYSTEM",
    "SPECIAL_TOKENS",
    "message_text",
    "render",
    "segments",
]

DEFAULT_SYSTEM = "You are a helpful assistant."
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TOOL_ROLES = ("tool", "environment")
_TOOLS_BEGIN = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_TOOLS_END = (
    "\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)

# The Qwen2.5-Instruct template with three changes: a neutral default system prompt, the role `environment` beside
# `tool`, and arguments that are already JSON text are written as they are.
CHAT_TEMPLATE = """{%- set default_system = '@DEFAULT@' %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- default_system }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with function signatures within <tools></tools> XML tags:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\n' + default_system + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {%- if tool_call.arguments is string %}
                {{- tool_call.arguments }}
            {%- else %}
                {{- tool_call.arguments | tojson }}
            {%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" or message.role == "environment" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool" and messages[loop.index0 - 1].role != "environment") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool" and messages[loop.index0 + 1].role != "environment") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""".replace("@DEFAULT@", DEFAULT_SYSTEM)  # noqa: E501  # Qwen's lines as they are


def render(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """Write a conversation as the text the model reads.

    Args:
        messages: OpenAI-style messages; `content` is text, None or a list of text parts.
        tools: JSON schemas of the tools on offer.
        add_generation_prompt: End with the header of the assistant's next message.

    Returns:
        The same text, byte for byte, as the chat template of the weights directory gives.

    >>> render([{"role": "user", "content": "Hi"}])[-22:]
    '<|im_start|>assistant\\n'
    """
    return "".join(f"<|im_start|>{body}<|im_end|>\n" for body, _ in segments(messages, tools)) + (
        "<|im_start|>assistant\n" if add_generation_prompt else ""
    )


def segments(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
) -> Iterator[tuple[str, int]]:
    """The text between `<|im_start|>` and `<|im_end|>` of every block, with the index of its (first) message or -1.

    A block's text begins with its role and a newline; tool results in a row share one user block.
    """
    if not messages:
        raise ValueError(
            "messages=[] holds nothing to render; pass at least one message such as {'role': 'user', 'content': 'Hi'}"
        )
    first_is_system = messages[0]["role"] == "system"
    system = message_text(messages[0]) if first_is_system else DEFAULT_SYSTEM
    if tools:
        system += _TOOLS_BEGIN + "".join("\n" + _json(tool) for tool in tools) + _TOOLS_END
    yield f"system\n{system}", 0 if first_is_system else -1
    index = 1 if first_is_system else 0
    while index < len(messages):
        message = messages[index]
        role = message["role"]
        if role in _TOOL_ROLES:
            end = index
            while end < len(messages) and messages[end]["role"] in _TOOL_ROLES:
                end += 1
            yield (
                "user"
                + "".join(f"\n<tool_response>\n{message_text(m)}\n</tool_response>" for m in messages[index:end]),
                index,
            )
            index = end
            continue
        if role == "assistant" and message.get("tool_calls"):
            yield _calls_block(message), index
        elif role in ("system", "user", "assistant"):
            yield f"{role}\n{message_text(message)}", index
        else:
            raise ValueError(
                f"messages[{index}] has role {role!r}; use one of system, user, assistant, tool, environment"
            )
        index += 1


def message_text(message: Mapping[str, Any]) -> str:
    """The text of a message's content: a string, None, or a list of text parts."""
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)):
        return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in content)
    return str(content)


def _calls_block(message: Mapping[str, Any]) -> str:
    content = message_text(message)
    parts = ["assistant"]
    if content:
        parts.append("\n" + content)
    for call in message["tool_calls"]:
        function = call.get("function", call)
        arguments = function["arguments"]
        written = arguments if isinstance(arguments, str) else _json(arguments)
        parts.append(f'\n<tool_call>\n{{"name": "{function["name"]}", "arguments": {written}}}\n</tool_call>')
    return "".join(parts)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
