"""What models that are sent token ids share, whether they run behind a server or in this process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import BadResponse, InvalidArgument, MissingExtra
from ..prompts.chat.template import ChatTemplate
from ..prompts.chat.tokenizer import ChatTokenizer
from ..schema import Completion
from .base import _LLM, Conversation, Params
from .openai_wire import check_one_answer
from .prompting import Prompt, prompt_of, text_and_calls

__all__ = ["chat_tokenizer", "of_batch"]


class _TokenModel(_LLM):
    """From a conversation to the prompt's ids, and from sampled ids to the answer.

    Attributes:
        prompts: makes the ids of conversations.
    """

    prompts: ChatTokenizer

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self.prompts.encode(text)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self.prompts.decode(ids)

    def _prompt(self, messages: Conversation, params: Params, index: int = 0) -> Prompt:
        """What the model goes on from for the `index`-th conversation of a call."""
        check_one_answer(params)
        return prompt_of(messages, params, index, type(self).__name__, self.path, self._render, self.tokenize)

    def _render(self, messages: Any, tools: Any = None) -> list[int]:
        return self.prompts.encode_chat(messages, tools, add_generation_prompt=True)

    def _read(self, prompt: Prompt, answer: Completion, params: Params, drops_last: bool = False) -> Completion:
        """The engine's answer with its text decoded where it has none, and its calls read.

        Raises:
            BadResponse: it was sampled from another prompt than the one that was sent.
        """
        span, usage = answer.tokens, answer.usage
        assert span is not None  # all engines are asked for it
        read = len(prompt.ids) if usage is None else usage.prompt_tokens
        if span.prompt_ids is None:
            span.prompt_ids = prompt.ids
        if span.prompt_ids != prompt.ids or read != len(prompt.ids):
            raise BadResponse(
                f"{self!r} read {read} tokens that are not the {len(prompt.ids)} it was sent: "
                "have it neither cut prompts nor add tokens to them"
            )
        span.forced = prompt.forced_tokens
        text = answer.text
        if drops_last:
            text = self.detokenize(span.ids[:-1] if answer.finish_reason == "stop" else span.ids)
        text, reason, calls = prompt.forced + text, answer.finish_reason, None
        if prompt.form is not None:
            text, calls = text_and_calls(text, prompt.form)
            reason = "tool_calls" if calls else reason
        with_tokens = any(params.get(name) for name in ("logprobs", "top_logprobs", "return_token_ids"))
        return Completion(
            text,
            tool_calls=calls,
            usage=usage,
            model=answer.model or self.path,
            finish_reason=reason,
            tokens=span if with_tokens else None,
        )


def chat_tokenizer(tokenizer: Any, template: ChatTemplate | str | None = None) -> ChatTokenizer:
    """What makes the ids of conversations for a model.

    Args:
        tokenizer: a `ChatTokenizer`, a Hugging Face directory or name, or what `ChatTokenizer` takes.
        template: a `ChatTemplate` or the name of one; None for the tokenizer's own.

    Raises:
        InvalidArgument: there is no such tokenizer, or no template.
        MissingExtra: it is to be had from the hub, and transformers is not installed.
    """
    if isinstance(tokenizer, ChatTokenizer):
        if template is not None:
            raise InvalidArgument("template", template, "the ChatTokenizer has one already: give None")
        return tokenizer
    if not isinstance(tokenizer, str | os.PathLike):
        return ChatTokenizer(tokenizer, template)
    if Path(tokenizer).is_dir():
        return ChatTokenizer.load(tokenizer, template)
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise MissingExtra("transformers", "hf") from None
    try:
        found: Any = AutoTokenizer.from_pretrained(os.fspath(tokenizer))
    except (OSError, ValueError) as error:
        cure = f"give a directory with a tokenizer.json, or a name on the hub ({str(error).partition(chr(10))[0]})"
        raise InvalidArgument("tokenizer", os.fspath(tokenizer), cure) from error
    return ChatTokenizer(found, template)


def of_batch(params: Params, index: int) -> Params:
    """The parameters of the `index`-th conversation of a batch, which draws with a seed of its own."""
    if params.get("seed") is None or not index:
        return params
    return {**params, "seed": params["seed"] + index}
