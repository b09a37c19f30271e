"""Models run in this process by vLLM."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..concurrency import in_thread
from ..errors import MissingExtra
from ..schema import Completion, TokenSpan, Usage
from .base import _LLM, AsyncBaseLLM, BaseLLM, Conversation, Params
from .meta import render

__all__ = ["AsyncVllmModel", "VllmModel"]


class _Vllm(_LLM):
    """What both colours share: the engine and its answers."""

    real: ClassVar[bool] = False

    def __init__(
        self,
        path: str,
        meta_template: Sequence[Mapping[str, Any]] | None = None,
        tp: int = 1,
        *,
        dtype: str = "auto",
        engine: Mapping[str, Any] | None = None,
        **gen_params: Any,
    ) -> None:
        try:
            import vllm
        except ImportError:
            raise MissingExtra("vllm", "vllm") from None
        super().__init__(path, **gen_params)
        self.meta_template = meta_template
        self._vllm = vllm
        self._engine = vllm.LLM(model=path, tensor_parallel_size=tp, dtype=dtype, **(engine or {}))
        self._turn = threading.Lock()  # the engine takes one batch at a time

    def _answers(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        tools = params.get("tools") or None
        sampling = self._vllm.SamplingParams(**_sampling(params))
        with self._turn:
            if self.meta_template is not None and tools is None:
                prompts = [render(messages, self.meta_template) for messages in batch]
                outputs = self._engine.generate(prompts, sampling, use_tqdm=False)
            else:
                conversations = [[dict(message) for message in messages] for messages in batch]
                outputs = self._engine.chat(conversations, sampling, use_tqdm=False, tools=tools)
        return [_completion(output, self.path) for output in outputs]


class VllmModel(_Vllm, BaseLLM):
    """A model run in this process by vLLM (https://docs.vllm.ai), which `pip install 'lagentlike[vllm]'` brings.

    Args:
        path: a Hugging Face name or directory.
        meta_template: how roles are written, such as `INTERNLM2_META`; None takes the model's own chat template, which
            is also taken for calls with `tools`.
        tp: GPUs to spread the model over.
        dtype: `"auto"`, `"bfloat16"`, `"float16"` …
        engine: further arguments of `vllm.LLM`.
        max_new_tokens, temperature, top_p, top_k, repetition_penalty, stop_words: as for any model.
        **gen_params: any other field of `vllm.SamplingParams`; `logprobs=True` adds the tokens' log-probabilities.

    Raises:
        MissingExtra: vLLM is not installed.
    """

    def _chat(self, messages: Conversation, params: Params) -> Completion:
        return self._answers([messages], params)[0]

    def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        for _ in batch:
            self._start()
        return [self._finish(answer) for answer in self._answers(batch, params)]


class AsyncVllmModel(_Vllm, AsyncBaseLLM):
    """The async form of `VllmModel`: the engine works in a thread."""

    async def _chat(self, messages: Conversation, params: Params) -> Completion:
        return (await in_thread(self._answers, [messages], params))[0]

    async def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        for _ in batch:
            self._start()
        return [self._finish(answer) for answer in await in_thread(self._answers, batch, params)]


def _sampling(params: Params) -> dict[str, Any]:
    """Our parameters under vLLM's names."""
    fields = {name: value for name, value in params.items() if value is not None and name not in _OURS}
    if params.get("max_new_tokens") is not None:
        fields.setdefault("max_tokens", params["max_new_tokens"])
    if params.get("stop_words"):
        fields.setdefault("stop", list(params["stop_words"]))
    if isinstance(fields.get("logprobs"), bool):
        fields["logprobs"] = 0 if fields["logprobs"] else None  # 0: of the sampled token alone
    return fields


_OURS = frozenset(("max_new_tokens", "stop_words", "tools"))


def _completion(output: Any, model: str) -> Completion:
    """A `vllm.RequestOutput` as our answer."""
    sampled = output.outputs[0]
    ids, prompt_ids = list(sampled.token_ids), list(output.prompt_token_ids or ())
    logprobs = None
    if sampled.logprobs is not None:
        logprobs = [float(step[token].logprob) for token, step in zip(ids, sampled.logprobs, strict=True)]
    return Completion(
        sampled.text,
        usage=Usage(1, len(prompt_ids), len(ids)),
        model=model,
        finish_reason=sampled.finish_reason or "stop",
        tokens=TokenSpan(ids, logprobs, prompt_ids),
    )
