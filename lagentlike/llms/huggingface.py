"""Causal language models of transformers, run in this process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, ClassVar, TYPE_CHECKING

from ..errors import MissingExtra
from ..prompts.chat.template import ChatTemplate
from ..prompts.chat.tokenizer import ChatTokenizer
from .local import _Local, AsyncLocalLLM, LocalLLM, sampling
from .scheduler import Scheduler

if TYPE_CHECKING:
    from .torch_engine import TorchEngine

__all__ = [
    "AsyncHFTransformer",
    "AsyncHFTransformerCasualLM",
    "AsyncHFTransformerChat",
    "HFTransformer",
    "HFTransformerCasualLM",
    "HFTransformerChat",
]


class _HF(_Local):
    """What both colours share: the model, and ids to text and back."""

    kind: ClassVar[str] = "HFTransformer"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        model: Any = None,
        tokenizer: Any = None,
        template: ChatTemplate | str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        prefix_bytes: int | None = None,
        temperature: float | None = 0.0,
        seed: int | None = None,
        **gen_params: Any,
    ) -> None:
        try:
            from .torch_engine import PREFIX_BYTES, read_model, read_tokenizer, TorchEngine
        except ImportError as error:
            raise MissingExtra(error.name or "transformers", "hf") from None
        super().__init__(os.fspath(path), temperature=temperature, seed=seed, **gen_params)
        sampling(self.gen_params, self.kind)
        self.tokenizer = read_tokenizer(self.path) if tokenizer is None else tokenizer
        if not isinstance(model, TorchEngine):
            model = read_model(self.path, device, dtype) if model is None else model
            room = PREFIX_BYTES if prefix_bytes is None else prefix_bytes
            model = TorchEngine(model, ChatTokenizer(self.tokenizer, template), room)
        self._engine: TorchEngine = model

    @property
    def engine(self) -> TorchEngine:
        """The engine behind it."""
        return self._engine

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self._engine.chat.encode(text)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self._engine.chat.decode(ids)

    @property
    def _vocab_size(self) -> int:
        return self._engine.vocab_size

    @property
    def _scheduler(self) -> Scheduler:
        return self._engine.scheduler


class HFTransformer(_HF, LocalLLM):
    """A causal language model of transformers, run in this process on CPU or GPU; the extra `hf` brings what it needs.

    Args:
        path: a Hugging Face directory or name.
        model: the model, where it is loaded already; it stays on its device. Or the `engine` of another such object,
            with its template: what both are asked is then decoded together.
        tokenizer: its fast tokenizer, where that is loaded already.
        template: a `ChatTemplate` or the name of one; None takes the tokenizer's own.
        device: "cpu", "cuda", "cuda:1" …; None takes a GPU if there is one.
        dtype: "float32", "bfloat16", "float16" or "auto" (as stored); None is float32 on CPU and "auto" elsewhere.
        prefix_bytes: most memory for what was read lately, so that a prompt which begins alike (the next turn of a
            conversation, a system prompt) is read from there on; None is 512 MiB, 0 none.
        max_new_tokens: most tokens an answer may have.
        temperature: 0 takes the most likely token.
        top_p, top_k: keep the likeliest tokens only; they matter where `temperature` is above 0.
        repetition_penalty: above 1 makes tokens that are there already less likely.
        stop_words: texts that end an answer; they are not part of it.
        seed: makes sampling repeatable; conversation i of a batch draws with `seed + i`.
        **gen_params: `logprobs=True` gives token ids and log-probabilities in `Completion.tokens`, `top_logprobs=k`
            the k likeliest tokens of each step as well; `tools` takes JSON schemas; `tool_choice` is "auto",
            "none", "required" or names a function, which is then called: those words are given, not sampled;
            `tool_format` is the text format of the model's calls, by its name where it is not given;
            `prompt_ids` takes the token ids to go on from, instead of the messages (for a batch, a list of lists).

    Raises:
        MissingExtra: torch or transformers is not installed.
        InvalidArgument: a parameter is unknown or out of range.

    Log-probabilities are the model's own, the log-softmax of its raw logits, whatever temperature, truncation or
    penalty a token was picked with; a teacher-forced pass gives the same. They are those of the distribution that was
    sampled from where `temperature` is 1, `top_p` 1, `top_k` 0 and `repetition_penalty` 1.

    Special tokens come from the chat template alone: a message that spells one is read as that text. Calls made at the
    same time, from threads or tasks, are decoded as one batch; one that comes later joins it at the next token. Weights
    may be changed in place, as an optimizer does: what was read before is then read anew.

    Attributes:
        tokenizer: the tokenizer, as transformers has it.
    """


class AsyncHFTransformer(_HF, AsyncLocalLLM):
    """The async form of `HFTransformer`: tasks that ask at the same time are answered as one batch, beside the loop."""


HFTransformerCasualLM = HFTransformerChat = HFTransformer
"""Lagent's other names: causal language models are all there is, and each has a chat template."""

AsyncHFTransformerCasualLM = AsyncHFTransformerChat = AsyncHFTransformer
