"""Models run in this process by vLLM, which is sent token ids and gives them."""

from __future__ import annotations

import asyncio
import queue
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from functools import partial
from typing import Any, ClassVar, NamedTuple

from ..concurrency import LoopThread, result_of
from ..errors import MissingExtra
from ..prompts.chat.template import ChatTemplate
from ..schema import Completion, TokenSpan
from .base import AsyncBaseLLM, BaseLLM, Conversation, Params, side_by_side
from .meta import render
from .prompting import Prompt
from .token_model import _TokenModel, chat_tokenizer, of_batch
from .token_wire import answer_of, sampling_fields

__all__ = ["AsyncVllmModel", "BatchedVllmModel", "VllmModel"]


class _Vllm(_TokenModel):
    """What all forms share: requests as the engine takes them, and its answers."""

    real: ClassVar[bool] = False

    def __init__(
        self,
        path: str,
        meta_template: Sequence[Mapping[str, Any]] | None = None,
        tp: int = 1,
        *,
        dtype: str = "auto",
        template: ChatTemplate | str | None = None,
        tokenizer: Any = None,
        engine: Mapping[str, Any] | None = None,
        **gen_params: Any,
    ) -> None:
        try:
            import vllm
        except ImportError:
            raise MissingExtra("vllm", "vllm") from None
        super().__init__(path, **gen_params)
        self.meta_template = meta_template
        self.prompts = chat_tokenizer(path if tokenizer is None else tokenizer, template)
        self._vllm = vllm
        self._open({"model": path, "tensor_parallel_size": tp, "dtype": dtype, **(engine or {})})

    def _open(self, arguments: dict[str, Any]) -> None:
        """Start the engine."""
        raise NotImplementedError(f"{type(self).__name__} must define _open")

    def _asked(self, messages: Conversation, params: Params, index: int = 0) -> _Asked:
        params = of_batch(params, index)
        fields = sampling_fields(params, all_tokens=-1)
        fields["max_tokens"] = params.get("max_new_tokens")  # None: as many as fit
        fields["stop"] = list(params.get("stop_words") or ())
        fields["logprobs"] = 0  # of the sampled token alone
        sampling = self._vllm.SamplingParams(**fields)
        if self.meta_template is not None and not params.get("tools") and params.get("prompt_ids") is None:
            return _Asked(render(messages, self.meta_template), sampling, None)
        prompt = self._prompt(messages, params, index)
        return _Asked(self._vllm.TokensPrompt(prompt_token_ids=prompt.ids), sampling, prompt)

    def _answer(self, asked: _Asked, output: Any, params: Params) -> Completion:
        """A `vllm.RequestOutput` as our answer."""
        sampled = output.outputs[0]
        ids, prompt_ids = list(sampled.token_ids), list(output.prompt_token_ids or ())
        logprobs = None
        if sampled.logprobs is not None:
            logprobs = [float(step[id_].logprob) for id_, step in zip(ids, sampled.logprobs, strict=True)]
        counts = {
            "prompt_tokens": len(prompt_ids),
            "completion_tokens": len(ids),
            "cached_tokens": getattr(output, "num_cached_tokens", None),
        }
        answer = answer_of(sampled.text, TokenSpan(ids, logprobs, prompt_ids), sampled.finish_reason, counts)
        return self._read(asked.prompt or Prompt(prompt_ids, "", None), answer, params)


class _Asked(NamedTuple):
    """A request as vLLM takes it; `prompt` is None where vLLM makes the ids of a text."""

    given: Any
    sampling: Any
    prompt: Prompt | None


class VllmModel(_Vllm, BaseLLM):
    """A model run in this process by vLLM (https://docs.vllm.ai), which `pip install 'lagentlike[vllm]'` brings.

    Conversations are rendered here and sent as token ids; calls made at once, from threads, are decoded as one batch of
    `vllm.LLM.generate`.

    Args:
        path: a Hugging Face name or directory.
        meta_template: how roles are written, such as `INTERNLM2_META`; None takes the model's own chat template, which
            is also taken for calls with `tools`.
        tp: GPUs to spread the model over.
        dtype: `"auto"`, `"bfloat16"`, `"float16"` …
        template: a `ChatTemplate` or the name of one; None for the tokenizer's own.
        tokenizer: its tokenizer as for `TokenAPI`, where that is not found at `path`.
        engine: further arguments of `vllm.LLM`, or of `vllm.AsyncEngineArgs` for `AsyncVllmModel`.
        max_new_tokens, temperature, top_p, top_k, repetition_penalty, stop_words: as for any model.
        **gen_params: `logprobs=True` puts ids and log-probabilities into `Completion.tokens`; `tools`, `tool_choice`
            and `prompt_ids` as for `HFTransformer`; any other field of `vllm.SamplingParams`, such as `seed`.

    Raises:
        MissingExtra: vLLM is not installed.
    """

    def _open(self, arguments: dict[str, Any]) -> None:
        self._batches = _Batches(partial(self._vllm.LLM, **arguments))

    def _chat(self, messages: Conversation, params: Params) -> Completion:
        asked = self._asked(messages, params)
        return self._answer(asked, result_of(self._batches.submit(asked)), params)

    def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        asked = []
        for index, messages in enumerate(batch):
            self._start()
            asked.append(self._asked(messages, params, index))
        running = [self._batches.submit(one) for one in asked]
        pairs = zip(asked, running, strict=True)
        return [self._finish(self._answer(one, future.result(), params)) for one, future in pairs]


class _AsyncVllm(_Vllm, AsyncBaseLLM):
    """What the async forms share: one request for each conversation."""

    async def _generate(self, asked: _Asked) -> Any:
        """The `vllm.RequestOutput` of a request."""
        raise NotImplementedError(f"{type(self).__name__} must define async _generate")

    async def _chat(self, messages: Conversation, params: Params, index: int = 0) -> Completion:
        asked = self._asked(messages, params, index)
        return self._answer(asked, await self._generate(asked), params)

    async def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        for _ in batch:
            self._start()
        asking = [self._chat(messages, params, index) for index, messages in enumerate(batch)]
        return [self._finish(answer) for answer in await side_by_side(asking)]


class AsyncVllmModel(_AsyncVllm):
    """The async form of `VllmModel`, over vLLM's `AsyncLLM`.

    Requests join the engine's batch as they come, and a call that is cancelled is aborted in the engine. The engine
    lives on an event loop of its own, so that it may be called from any.
    """

    def _open(self, arguments: dict[str, Any]) -> None:
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.async_llm import AsyncLLM

        self._final = RequestOutputKind.FINAL_ONLY
        self._thread = LoopThread("lagentlike-vllm")

        async def start() -> Any:
            return AsyncLLM.from_engine_args(self._vllm.AsyncEngineArgs(**arguments))

        self._engine = self._thread.submit(start()).result()

    def close(self) -> None:
        """Shut the engine down, which gives its memory back; this model cannot be asked any more."""
        self._engine.shutdown()

    async def _generate(self, asked: _Asked) -> Any:
        return await asyncio.wrap_future(self._thread.submit(self._last_output(asked)))

    async def _last_output(self, asked: _Asked) -> Any:
        asked.sampling.output_kind = self._final
        output = None
        async with aclosing(self._engine.generate(asked.given, asked.sampling, uuid.uuid4().hex)) as outputs:
            async for output in outputs:  # noqa: B007  # the last one is the whole
                pass
        return output


class BatchedVllmModel(_AsyncVllm):
    """An async form of `VllmModel` over `vllm.LLM`: what tasks ask for at once is one batch of `LLM.generate`.

    Requests that come while a batch is decoded wait for its end, and one that is cancelled by then is decoded all the
    same; `AsyncVllmModel` knows neither.
    """

    def _open(self, arguments: dict[str, Any]) -> None:
        self._batches = _Batches(partial(self._vllm.LLM, **arguments))

    async def _generate(self, asked: _Asked) -> Any:
        return await asyncio.wrap_future(self._batches.submit(asked))


class _Batches:
    """Hands an engine all requests that wait, batch by batch, in a thread that ends with this object.

    The engine is opened in that thread as well, since a GPU is chosen by thread.
    """

    def __init__(self, open_engine: Callable[[], Any]) -> None:
        self._waiting: _Waiting = queue.SimpleQueue()
        opened: Future[None] = Future()
        threading.Thread(
            target=_work, args=(open_engine, opened, self._waiting), daemon=True, name="lagentlike-vllm-batches"
        ).start()
        weakref.finalize(self, self._waiting.put, None)
        opened.result()

    def submit(self, asked: _Asked) -> Future[Any]:
        """Put a request in line; its future is the `vllm.RequestOutput`."""
        future: Future[Any] = Future()
        self._waiting.put((asked, future))
        return future


_Waiting = queue.SimpleQueue[tuple[_Asked, Future[Any]] | None]


def _work(open_engine: Callable[[], Any], opened: Future[None], waiting: _Waiting) -> None:
    try:
        engine = open_engine()
    except BaseException as error:  # noqa: BLE001  # it is raised where the engine was asked for
        opened.set_exception(error)
        return
    opened.set_result(None)
    while (taken := _taken(waiting)) is not None:
        batch = [(asked, future) for asked, future in taken if future.set_running_or_notify_cancel()]
        if not batch:
            continue
        try:
            prompts, sampling = [asked.given for asked, _ in batch], [asked.sampling for asked, _ in batch]
            outputs = engine.generate(prompts, sampling, use_tqdm=False)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer to each request
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), output in zip(batch, outputs, strict=True):
                future.set_result(output)


def _taken(waiting: _Waiting) -> list[tuple[_Asked, Future[Any]]] | None:
    """All that waits, as soon as something does, and what comes within a moment; None where nobody can ask any more."""
    taken, one = [], waiting.get()
    while one is not None:
        taken.append(one)
        try:
            one = waiting.get(timeout=_WINDOW_SECONDS)
        except queue.Empty:
            return taken
    return None


_WINDOW_SECONDS = 0.004  # that an engine waits for more requests after one
