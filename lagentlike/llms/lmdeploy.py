"""Models run in this process by LMDeploy, which is sent token ids and gives them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, ClassVar

from ..concurrency import result_of
from ..errors import ContextLengthExceeded, MissingExtra
from ..prompts.chat.template import ChatTemplate
from ..schema import Completion, TokenSpan
from .base import AsyncBaseLLM, BaseLLM, Conversation, Params, side_by_side
from .token_model import _TokenModel, chat_tokenizer, of_batch
from .token_wire import answer_of, sampling_fields

__all__ = ["AsyncLMDeployPipeline", "LMDeployPipeline"]


class _LMDeploy(_TokenModel):
    """What both colours share: the pipeline, whose engine lives on an event loop of its own."""

    real: ClassVar[bool] = False

    def __init__(
        self,
        path: str,
        tp: int = 1,
        *,
        template: ChatTemplate | str | None = None,
        tokenizer: Any = None,
        engine: Any = None,
        **gen_params: Any,
    ) -> None:
        try:
            import lmdeploy
        except ImportError:
            raise MissingExtra("lmdeploy", "lmdeploy") from None
        super().__init__(path, **gen_params)
        self.prompts = chat_tokenizer(path if tokenizer is None else tokenizer, template)
        self._lmdeploy = lmdeploy
        if engine is None or isinstance(engine, Mapping):
            raw = {"tp": tp, "logprobs_mode": "raw_logprobs"}
            engine = lmdeploy.PytorchEngineConfig(**{**raw, **(engine or {})})
        self._pipeline = lmdeploy.pipeline(path, backend_config=engine)
        self._engine = getattr(self._pipeline, "async_engine", self._pipeline)  # older releases: the engine itself
        self._sessions = itertools.count(_FIRST_SESSION)

    def close(self) -> None:
        """Shut the engine down, which gives its memory back; this model cannot be asked any more."""
        self._pipeline.close()

    def _submit(self, messages: Conversation, params: Params, index: int = 0) -> Future[Completion]:
        """Ask the engine; cancelling the future aborts its session."""
        answer = self._answer(messages, of_batch(params, index), index)
        return asyncio.run_coroutine_threadsafe(answer, self._pipeline.internal_thread.loop)

    async def _answer(self, messages: Conversation, params: Params, index: int) -> Completion:
        prompt = self._prompt(messages, params, index)
        limit = self._engine.session_len
        if limit is not None and len(prompt.ids) >= limit:
            raise ContextLengthExceeded(
                f"the conversation has {len(prompt.ids)} tokens and the engine's session_len is {limit}",
                used=len(prompt.ids),
                limit=limit,
            )
        ids: list[int] = []
        steps: list[Mapping[int, float]] = []
        part = None
        async with aclosing(await self._generate(prompt.ids, self._config(params))) as parts:
            async for part in parts:
                ids += part.token_ids or ()
                steps += part.logprobs or ()
        logprobs = [float(step[id_]) for id_, step in zip(ids, steps, strict=True)] if steps else None
        counts = {"prompt_tokens": getattr(part, "input_token_len", len(prompt.ids)), "completion_tokens": len(ids)}
        answer = answer_of("", TokenSpan(ids, logprobs), getattr(part, "finish_reason", "error"), counts)
        return self._read(prompt, answer, params, drops_last=True)

    async def _generate(self, ids: list[int], config: Any) -> Any:
        """The engine's answer part by part."""
        engine, session = self._engine, next(self._sessions)
        if hasattr(engine, "preprocess"):  # newer releases prepare a request first
            return engine.generate(
                await engine.preprocess(None, session, gen_config=config, input_ids=ids), stream_response=False
            )
        return engine.generate(None, session, gen_config=config, stream_response=False, input_ids=ids)

    def _config(self, params: Params) -> Any:
        """A `lmdeploy.GenerationConfig`; it takes the likeliest token unless it is told to sample."""
        fields = sampling_fields(params, all_tokens=0)
        if "seed" in fields:
            fields["random_seed"] = fields.pop("seed")
        fields["do_sample"] = fields.get("temperature") != 0
        if params.get("stop_words"):
            fields["stop_words"] = list(params["stop_words"])
        # Without include_stop_str_in_output the token that ended the answer is not among its ids.
        return self._lmdeploy.GenerationConfig(
            max_new_tokens=params.get("max_new_tokens"), logprobs=1, include_stop_str_in_output=True, **fields
        )


class LMDeployPipeline(_LMDeploy, BaseLLM):
    """A model run in this process by LMDeploy (https://lmdeploy.readthedocs.io); the extra `lmdeploy` brings it.

    Conversations are rendered here and sent as token ids.

    Args:
        path: a Hugging Face name or directory.
        tp: GPUs to spread the model over.
        template: a `ChatTemplate` or the name of one; None for the tokenizer's own.
        tokenizer: its tokenizer as for `TokenAPI`, where that is not found at `path`.
        engine: further fields of `lmdeploy.PytorchEngineConfig`, or an engine config of LMDeploy, taken as it is.
        max_new_tokens, temperature, top_p, top_k, repetition_penalty: as for any model; LMDeploy's own defaults sample
            from the 50 likeliest tokens at temperature 0.8.
        stop_words: texts of single tokens; an answer ends with the token, which is no part of its text.
        **gen_params: `logprobs=True` puts ids and log-probabilities into `Completion.tokens`; `seed`; `tools`,
            `tool_choice` and `prompt_ids` as for `HFTransformer`; any other field of `lmdeploy.GenerationConfig`.

    Log-probabilities are those of the model's raw logits with the PyTorch engine, which is taken unless `engine` says
    otherwise.

    Raises:
        MissingExtra: LMDeploy is not installed.
    """

    def _chat(self, messages: Conversation, params: Params) -> Completion:
        asked = self._submit(messages, params)
        try:
            return result_of(asked)
        except BaseException:
            asked.cancel()
            raise

    def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        asked = []
        for index, messages in enumerate(batch):
            self._start()
            asked.append(self._submit(messages, params, index))
        return [self._finish(one.result()) for one in asked]


class AsyncLMDeployPipeline(_LMDeploy, AsyncBaseLLM):
    """The async form of `LMDeployPipeline`; a call that is cancelled is aborted in the engine."""

    async def _chat(self, messages: Conversation, params: Params, index: int = 0) -> Completion:
        return await asyncio.wrap_future(self._submit(messages, params, index))

    async def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        for _ in batch:
            self._start()
        asking = [self._chat(messages, params, index) for index, messages in enumerate(batch)]
        return [self._finish(answer) for answer in await side_by_side(asking)]


_FIRST_SESSION = 1_000_000  # far from the numbers that LMDeploy gives its own sessions
