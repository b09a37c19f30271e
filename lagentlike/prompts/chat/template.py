"""Chat templates: the Jinja programs that write a conversation as the text a model was trained to read."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from ...errors import InvalidArgument

__all__ = ["ChatTemplate", "plain_data", "plain_messages", "read_json", "special_tokens"]

_FOLDER = Path(__file__).parent / "templates"
_LLAMA = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
_DEEPSEEK = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
_GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>"}
_SENTENCE = {"bos_token": "<s>", "eos_token": "</s>"}
_PHI = {"bos_token": "<s>", "eos_token": "<|endoftext|>"}

# name -> file in `templates/`, and the special tokens that it asks for, as its family has them
_NAMED: dict[str, tuple[str, Mapping[str, str]]] = {
    "aya-expanse": ("aya-expanse", {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>"}),
    "chatml": ("chatml", {}),
    "deepseek-r1": ("deepseek-r1", _DEEPSEEK),
    "deepseek-r1-distill": ("deepseek-r1-distill", _DEEPSEEK),
    "deepseek-v3": ("deepseek-v3", _DEEPSEEK),
    "gemma": ("gemma-2", _GEMMA),
    "gemma-2": ("gemma-2", _GEMMA),
    "gemma-3": ("gemma-3", _GEMMA),
    "glm-4": ("glm-4", {}),
    "glm-4.5": ("glm-4.5", {}),
    "gpt-oss": ("gpt-oss", {}),
    "granite-3.3": ("granite-3.3", {}),
    "internlm2": ("internlm2", _SENTENCE),
    "internlm2.5": ("internlm2", _SENTENCE),
    "internlm3": ("internlm2", _SENTENCE),
    "kimi-k2": ("kimi-k2", {}),
    "lfm2": ("lfm2", {"bos_token": "<|startoftext|>", "eos_token": "<|im_end|>"}),
    "llama-3": ("llama-3", _LLAMA),
    "llama-3.1": ("llama-3.1", _LLAMA),
    "llama-3.2": ("llama-3.2", _LLAMA),
    "llama-3.3": ("llama-3.1", _LLAMA),
    "mistral": ("mistral-nemo", _SENTENCE),
    "mistral-nemo": ("mistral-nemo", _SENTENCE),
    "phi-3": ("phi-3", _PHI),
    "phi-3.5": ("phi-3.5", _PHI),
    "phi-4": ("phi-4", {}),
    "qwen2.5": ("qwen2.5", {}),
    "qwen2.5-coder": ("qwen2.5", {}),
    "qwen3": ("qwen3", {}),
    "qwen3-instruct-2507": ("qwen3-instruct-2507", {}),
    "qwq": ("qwq", {}),
}


class ChatTemplate:
    """Writes a conversation as a model's text, as transformers' `apply_chat_template` does, byte for byte.

    Args:
        source: the Jinja program; or a dict of several, of which `tool_use` is taken for calls with tools and
            `default` for all others.
        name: what errors call it.
        variables: what the program is told with every call, such as `bos_token`.

    Raises:
        InvalidArgument: `source` is no Jinja program.

    >>> template = ChatTemplate.named("qwen2.5")
    >>> template.render([{"role": "user", "content": "Hi"}], add_generation_prompt=True)[-61:]
    '<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n'
    """

    _registered: ClassVar[dict[str, tuple[str, Mapping[str, str]]]] = {}

    def __init__(
        self, source: str | Mapping[str, str], *, name: str = "", variables: Mapping[str, Any] | None = None
    ) -> None:
        self.source = source
        self.name = name
        self.variables = dict(variables or {})
        for text in [source] if isinstance(source, str) else source.values():
            _check(text)

    @classmethod
    def named(cls, name: str) -> Self:
        """A template by the name of its family, such as "qwen2.5"; `names` lists them.

        Raises:
            InvalidArgument: nothing has that name.
        """
        if name in cls._registered:
            source, variables = cls._registered[name]
            return cls(source, name=name, variables=variables)
        if name not in _NAMED:
            close = difflib.get_close_matches(str(name), cls.names(), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"give one of {', '.join(cls.names())}"
            raise InvalidArgument("template", name, f"there is no such template; {hint}")
        file, variables = _NAMED[name]
        return cls((_FOLDER / f"{file}.jinja").read_text(encoding="utf-8"), name=name, variables=variables)

    @classmethod
    def names(cls) -> list[str]:
        """The names that `named` knows, those that were registered with them."""
        return sorted({*_NAMED, *cls._registered})

    @classmethod
    def register(cls, name: str, source: str, **variables: str) -> None:
        """Give a template a name, for this process.

        Args:
            name: what `named` takes; it goes before a name that is there already.
            source: the Jinja program.
            **variables: special tokens that it asks for, such as `bos_token="<s>"`.

        Raises:
            InvalidArgument: `source` is no Jinja program.
        """
        _check(source)
        cls._registered[name] = (source, variables)

    @classmethod
    def of(cls, tokenizer: Any) -> Self:
        """The template that comes with a tokenizer, with the tokenizer's special tokens.

        Args:
            tokenizer: a Hugging Face directory, or a tokenizer of transformers.

        Raises:
            InvalidArgument: it has none.
        """
        if isinstance(tokenizer, str | os.PathLike):
            name, source, variables = os.fspath(tokenizer), *_in_directory(Path(tokenizer))
        else:
            name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
            source = getattr(tokenizer, "chat_template", None)
            variables = special_tokens(getattr(tokenizer, "special_tokens_map", {}))
        if not source:
            cure = "it has no chat template: give a name such as 'chatml', or ChatTemplate(source)"
            raise InvalidArgument("tokenizer", tokenizer, cure)
        return cls(source, name=name, variables=variables)

    def with_variables(self, variables: Mapping[str, Any]) -> Self:
        """The same template, told these as well."""
        return type(self)(self.source, name=self.name, variables={**self.variables, **variables})

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        **template_variables: Any,
    ) -> str:
        """The text of a conversation.

        Args:
            messages: in chat format, or in the shape that trajectories have (see `plain`).
            tools: JSON schemas of the tools on offer; an empty list is as good as None.
            add_generation_prompt: end with what begins the assistant's next message.
            **template_variables: anything else the template knows, such as `enable_thinking`.

        Raises:
            InvalidArgument: the template refuses the conversation, or cannot write it; the message says why.
        """
        schemas = plain_data(tools or None, "tools")
        return self.write(self.plain(messages), schemas, add_generation_prompt, template_variables)

    def plain(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The messages as this template reads them, which is what transformers should be given for the same text.

        Content in text parts becomes one text; a field that is None is left out, and so is an empty `tool_calls`; a
        tool's name is in `name`; the arguments of calls are a dict or JSON text, whichever the template can write.
        """
        readable = plain_messages(messages)
        takes = self._takes
        for message in readable:
            for call in message.get("tool_calls") or ():
                function = call.get("function", call)
                function["arguments"] = _arguments(function.get("arguments"), takes)
        return readable

    def write(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        add_generation_prompt: bool,
        template_variables: Mapping[str, Any],
    ) -> str:
        """The text of messages that are as `plain` gives them."""
        from .environment import compiled, RenderError

        variables = {**self.variables, **template_variables}
        try:
            return compiled(self._source(tools is not None)).render(
                messages=[_with_reasoning(message) for message in messages],
                tools=tools,
                documents=plain_data(variables.pop("documents", None), "documents"),
                add_generation_prompt=add_generation_prompt,
                **{name: plain_data(value, name) for name, value in variables.items()},
            )
        except RenderError as error:
            raise InvalidArgument("messages", messages, f"{self!r} refuses them: {error}") from error
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise InvalidArgument("messages", messages, f"{self!r} cannot write them: {error}") from error

    def _source(self, with_tools: bool) -> str:
        if isinstance(self.source, str):
            return self.source
        if with_tools and "tool_use" in self.source:
            return self.source["tool_use"]
        if "default" in self.source:
            return self.source["default"]
        cure = "several templates and none is called 'default': pass one of them"
        raise InvalidArgument("source", sorted(self.source), cure)

    @cached_property
    def _takes(self) -> frozenset[type]:
        """The forms of arguments that it can write, found by having it write them: dict, or JSON text."""
        found = set()
        for kind, arguments in ((dict, {"k": 7}), (str, '{"k": 7}')):
            function = {"name": "f", "arguments": arguments}
            call = {"id": "a00000000", "type": "function", "function": function}
            calling = {"role": "assistant", "content": "", "tool_calls": [call]}
            for message in (calling, {**calling, "content": None}):
                chat: list[dict[str, Any]] = [{"role": "user", "content": "q"}, message]
                if message["content"] is None:
                    del message["content"]
                try:
                    text = self.write(chat, None, False, {})
                except InvalidArgument:
                    continue
                if '\\"k\\"' not in text and "'k'" not in text:  # neither JSON text in quotes nor a dict's repr
                    found.add(kind)
                break
        return frozenset(found)

    def __repr__(self) -> str:
        return f"ChatTemplate({self.name!r})" if self.name else "ChatTemplate(…)"


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Chat messages as fresh plain dicts, without what is None and with content in text parts as one text.

    Raises:
        InvalidArgument: a message has no role, or holds something that is no plain data.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise InvalidArgument("messages", messages, "give a non-empty list of dicts with 'role' and 'content'")
    return [_plain_message(message, f"messages[{place}]") for place, message in enumerate(messages)]


def _plain_message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidArgument(where, message, "each message is a dict with 'role' and 'content'")
    plain: dict[str, Any] = {
        str(key): plain_data(value, f"{where}[{key!r}]") for key, value in message.items() if value is not None
    }
    content = plain.get("content")
    if isinstance(content, list) and all(_is_text(part) for part in content):
        plain["content"] = "".join(part if isinstance(part, str) else part["text"] for part in content)
    if not plain.get("tool_calls", True):
        del plain["tool_calls"]
    for call in plain.get("tool_calls", ()):
        if isinstance(call, dict) and call.get("id", "") is None:
            del call["id"]
    if "tool_name" in plain:
        plain.setdefault("name", plain["tool_name"])
    return plain


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (
        isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
    )


def _arguments(arguments: Any, takes: frozenset[type]) -> Any:
    """A call's arguments in a form that the template takes, if there is one."""
    if isinstance(arguments, dict) and takes == {str}:
        return json.dumps(arguments, ensure_ascii=False)
    if isinstance(arguments, str) and takes == {dict}:
        try:
            read = json.loads(arguments)
        except (ValueError, RecursionError):
            return arguments
        return read if isinstance(read, dict) else arguments
    return arguments


_REASONING = ("reasoning_content", "thinking", "reasoning")


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its thinking under each name that templates have for it."""
    thought = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    return message if thought is None else {"thinking": thought, **message, "reasoning_content": thought}


def plain_data(value: Any, where: str) -> Any:
    """A copy in dicts, lists and scalars, which have no methods that a template could misuse."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {plain_data(key, where): plain_data(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(item, where) for item in value]
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    raise InvalidArgument(where, value, "chat templates write plain data: texts, numbers, lists and dicts")


def _check(source: Any) -> None:
    from .environment import compiled, RenderError

    if not isinstance(source, str):
        raise InvalidArgument("source", source, "give the text of a Jinja template")
    try:
        compiled(source)
    except RenderError as error:
        raise InvalidArgument("source", source, f"this is no Jinja template: {error}") from error


def _in_directory(folder: Path) -> tuple[Any, dict[str, str]]:
    """The chat template and the special tokens of a Hugging Face directory."""
    if not folder.is_dir():
        raise InvalidArgument("tokenizer", os.fspath(folder), "there is no such directory")
    config = read_json(folder / "tokenizer_config.json")
    tokens = special_tokens({**read_json(folder / "special_tokens_map.json"), **config})
    source = config.get("chat_template")
    if isinstance(source, list):
        source = {item["name"]: item["template"] for item in source}
    alone, others = folder / "chat_template.jinja", folder / "additional_chat_templates"
    if alone.is_file():
        source = alone.read_text(encoding="utf-8")
        if others.is_dir():
            more = {path.stem: path.read_text(encoding="utf-8") for path in sorted(others.glob("*.jinja"))}
            source = {"default": source, **more}
    return source, tokens


def read_json(path: Path) -> dict[str, Any]:
    """The settings in a file; none if there is no such file."""
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return read


def special_tokens(tokens: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens among a tokenizer's settings, by name (`bos_token`, …)."""
    found = {}
    for name, token in tokens.items():
        content = token.get("content") if isinstance(token, Mapping) else getattr(token, "content", token)
        if name.endswith("_token") and isinstance(content, str):
            found[name] = content
    return found
