"""Meta templates: how the roles of a conversation are written for one family of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidArgument

__all__ = [
    "CHATML_META",
    "GEMMA_META",
    "GLM4_META",
    "INTERNLM2_META",
    "LLAMA2_META",
    "LLAMA3_META",
    "PHI3_META",
    "VICUNA_META",
    "render",
]

MetaTemplate = Sequence[Mapping[str, Any]]


def render(messages: Sequence[Mapping[str, Any]], meta_template: MetaTemplate) -> str:
    """The text of a conversation under a meta template, ready for the assistant's next message.

    Args:
        messages: dicts with `role`, `content` and perhaps `name`.
        meta_template: one dict a role: `role`, `begin` (a text, or `with_name`, `without_name` and what to write for a
            `name`) and `end`; `after_system`, which begins a message right after a system message; the assistant's may
            have a `generate`, which stands before the answer that is to come, where that is not its `begin`.

    What a tokenizer puts in front of every text (`<s>`, `[gMASK]<sop>`) is not part of it.

    Raises:
        InvalidArgument: a message's role is not in the template.

    >>> render([{"role": "user", "content": "hi"}], INTERNLM2_META)
    '<|im_start|>user\\nhi<|im_end|>\\n<|im_start|>assistant\\n'
    """
    roles = {item["role"]: item for item in meta_template}
    written: list[str] = []
    last = None
    for message in messages:
        item = roles.get(message["role"])
        if item is None:
            raise InvalidArgument("role", message["role"], f"the meta template knows {', '.join(roles)}")
        begin = (
            item["after_system"] if last == "system" and "after_system" in item else _begin(item, message.get("name"))
        )
        written.append(begin + str(message.get("content") or "") + item.get("end", ""))
        last = message["role"]
    assistant = roles.get("assistant", {})
    return "".join(written) + str(assistant.get("generate", _begin(assistant, None)))


def _begin(item: Mapping[str, Any], name: str | None) -> str:
    begin = item.get("begin", "")
    if isinstance(begin, str):
        return begin
    if name is None:
        return str(begin["without_name"])
    return str(begin["with_name"]).format(name=begin.get("name", {}).get(name, name))


def _role(role: str, names: dict[str, str] | None = None) -> dict[str, Any]:
    begin: dict[str, Any] = {
        "with_name": f"<|im_start|>{role} name={{name}}\n",
        "without_name": f"<|im_start|>{role}\n",
    }
    if names is not None:
        begin["name"] = names
    return {"role": role, "begin": begin, "end": "<|im_end|>\n"}


_TOOLS = {"interpreter": "<|interpreter|>", "plugin": "<|plugin|>"}

INTERNLM2_META: list[dict[str, Any]] = [
    _role("system", _TOOLS),
    _role("user"),
    _role("assistant", _TOOLS),
    _role("environment", _TOOLS),
]
"""InternLM2's format (https://github.com/InternLM/InternLM/blob/main/chat/chat_format.md): one dict a role, with the
text that begins a message (with and without a `name`) and the text that ends it."""


def _same(roles: str, begin: str, end: str, **more: dict[str, str]) -> list[dict[str, Any]]:
    """Roles that are written alike; `more` is what some have besides."""
    return [
        {"role": role, "begin": begin.format(role=role), "end": end, **more.get(role, {})} for role in roles.split()
    ]


CHATML_META = _same("system user assistant tool environment", "<|im_start|>{role}\n", "<|im_end|>\n")
"""ChatML, the format of Qwen, Yi, Hermes and many others."""

LLAMA3_META = _same(
    "system user assistant ipython environment", "<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>"
)
"""The format of Llama 3 and later."""

LLAMA2_META: list[dict[str, Any]] = [
    {"role": "system", "begin": "<s>[INST] <<SYS>>\n", "end": "\n<</SYS>>\n\n"},
    {"role": "user", "begin": "<s>[INST] ", "after_system": "", "end": " [/INST]"},
    {"role": "environment", "begin": "<s>[INST] ", "after_system": "", "end": " [/INST]"},
    {"role": "assistant", "begin": " ", "end": " </s>", "generate": ""},
]
"""The format of Llama 2 (https://github.com/meta-llama/llama/blob/main/llama/generation.py); every round has its own
`<s>`, so have the tokenizer add none."""

VICUNA_META: list[dict[str, Any]] = [
    {"role": "system", "begin": "", "end": " "},
    {"role": "user", "begin": "USER: ", "end": " "},
    {"role": "environment", "begin": "USER: ", "end": " "},
    {"role": "assistant", "begin": "ASSISTANT: ", "end": "</s>", "generate": "ASSISTANT:"},
]
"""The format of Vicuna 1.1 and later (https://github.com/lm-sys/FastChat/blob/main/docs/vicuna_weights_version.md)."""

PHI3_META = _same("system user assistant environment", "<|{role}|>\n", "<|end|>\n")
"""The format of Phi 3."""

GEMMA_META: list[dict[str, Any]] = [
    {"role": role, "begin": f"<start_of_turn>{written}\n", "end": "<end_of_turn>\n"}
    for role, written in (("user", "user"), ("environment", "user"), ("assistant", "model"))
]
"""The format of Gemma and Gemma 2, which know no system messages."""

GLM4_META = [
    {**item, "begin": item["begin"].replace("environment", "observation")}
    for item in _same("system user assistant environment", "<|{role}|>\n", "", assistant={"generate": "<|assistant|>"})
]
"""The format of GLM-4; results are its `observation`."""
