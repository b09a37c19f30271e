"""Meta templates: how the roles of a conversation are written for one family of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidArgument

__all__ = ["INTERNLM2_META", "render"]

MetaTemplate = Sequence[Mapping[str, Any]]


def render(messages: Sequence[Mapping[str, Any]], meta_template: MetaTemplate) -> str:
    """The text of a conversation under a meta template, ready for the assistant's next message.

    Args:
        messages: dicts with `role`, `content` and perhaps `name`.
        meta_template: one dict a role: `role`, `begin` (a text, or `with_name`, `without_name` and what to write for a
            `name`) and `end`.

    Raises:
        InvalidArgument: a message's role is not in the template.

    >>> render([{"role": "user", "content": "hi"}], INTERNLM2_META)
    '<|im_start|>user\\nhi<|im_end|>\\n<|im_start|>assistant\\n'
    """
    roles = {item["role"]: item for item in meta_template}
    written = []
    for message in messages:
        item = roles.get(message["role"])
        if item is None:
            raise InvalidArgument("role", message["role"], f"the meta template knows {', '.join(roles)}")
        written.append(_begin(item, message.get("name")) + str(message.get("content") or "") + item.get("end", ""))
    return "".join(written) + _begin(roles.get("assistant", {}), None)


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
