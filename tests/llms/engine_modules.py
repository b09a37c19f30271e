"""Stand-ins for the modules `vllm` and `lmdeploy`, which need a GPU: their signatures, over the embedded model.

Classes and functions have the parameters of vLLM 0.33 and LMDeploy 0.18 (and of older LMDeploy where it says so), so a
call that the real ones would not take is a `TypeError` here too. What they give is really sampled.
"""

from __future__ import annotations

import asyncio
import enum
import threading
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from lagentlike.llms import AsyncTinyLM, TinyLM
from lagentlike.llms.tiny.engine import TinyEngine
from lagentlike.schema import Completion, TokenSpan

NO_MESSAGES = [{"role": "user", "content": ""}]


@dataclass
class Calls:
    """What an engine was asked, and how it was opened."""

    opened: dict[str, Any]
    batches: list[list[list[int]]]
    sampling: list[Any]
    aborted: int = 0
    closed: int = 0
    delay: float = 0.0
    prefix: tuple[int, ...] = ()  # tokens that the engine puts before every prompt


def span(answer: Completion) -> TokenSpan:
    assert answer.tokens is not None
    return answer.tokens


# vLLM


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def ours(self) -> dict[str, Any]:
        return {
            "max_new_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": max(self.top_k, 0),
            "repetition_penalty": self.repetition_penalty,
            "stop_words": self.stop,
            "seed": self.seed,
            "logprobs": True,
        }


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


def tokens_prompt(*, prompt_token_ids: list[int]) -> dict[str, Any]:
    """`vllm.TokensPrompt`, which is a `TypedDict`."""
    return {"prompt_token_ids": prompt_token_ids}


def prompt_ids(prompt: Any) -> list[int]:
    return TinyEngine.load().encode(prompt) if isinstance(prompt, str) else prompt["prompt_token_ids"]


def check_dtype(dtype: str) -> None:
    if dtype not in ("auto", "half", "float16", "bfloat16", "float", "float32"):
        raise ValueError(f"Unknown dtype: {dtype}")


def request_output(prompt: list[int], answer: Completion, sampling: SamplingParams) -> Any:
    tokens = span(answer)
    steps = None
    if sampling.logprobs is not None:
        pairs = zip(tokens.ids, tokens.logprobs or (), strict=True)
        steps = [{id_: Logprob(logprob, 1)} for id_, logprob in pairs]
    completion = types.SimpleNamespace(
        index=0,
        text=answer.text,
        token_ids=tuple(tokens.ids),
        cumulative_logprob=None,
        logprobs=steps,
        finish_reason=answer.finish_reason,
        stop_reason=None,
    )
    return types.SimpleNamespace(
        request_id="0", prompt=None, prompt_token_ids=prompt, outputs=[completion], finished=True, num_cached_tokens=0
    )


@contextmanager
def vllm() -> Iterator[Calls]:
    """Have `import vllm` give the stand-in."""
    calls = Calls({}, [], [])

    class LLM:
        def __init__(
            self, model: str, *, tokenizer: str | None = None, tensor_parallel_size: int = 1, dtype: str = "auto",
            seed: int = 0, gpu_memory_utilization: float = 0.92, enforce_eager: bool = False, **kwargs: Any,
        ) -> None:  # fmt: skip
            check_dtype(dtype)
            calls.opened = {"model": model, "tensor_parallel_size": tensor_parallel_size, "dtype": dtype, **kwargs}
            calls.opened["gpu_memory_utilization"] = gpu_memory_utilization
            self._busy = threading.Lock()

        def generate(
            self, prompts: Any, sampling_params: Any = None, *, use_tqdm: bool = True, lora_request: Any = None,
            priority: Any = None, tokenization_kwargs: Any = None, mm_processor_kwargs: Any = None,
        ) -> list[Any]:  # fmt: skip
            assert self._busy.acquire(blocking=False), "the engine takes one batch at a time"
            try:
                ids = [prompt_ids(prompt) for prompt in prompts]
                calls.batches.append(ids)
                calls.sampling += sampling_params
                if any(max(prompt) >= TinyEngine.load().network.vocab_size for prompt in ids):
                    raise ValueError("Token id is out of vocabulary")
                pairs = list(zip(ids, sampling_params, strict=True))
                answers = [TinyLM().chat(NO_MESSAGES, prompt_ids=prompt, **one.ours()) for prompt, one in pairs]
                done = zip(pairs, answers, strict=True)
                return [request_output(prompt, answer, one) for (prompt, one), answer in done]
            finally:
                self._busy.release()

    @dataclass
    class AsyncEngineArgs:
        model: str
        tensor_parallel_size: int = 1
        dtype: str = "auto"
        gpu_memory_utilization: float = 0.92
        enforce_eager: bool = False
        disable_log_stats: bool = False
        enable_log_requests: bool = False

    class AsyncLLM:
        @classmethod
        def from_engine_args(
            cls, engine_args: AsyncEngineArgs, start_engine_loop: bool = True, usage_context: Any = None,
            stat_loggers: Any = None,
        ) -> AsyncLLM:  # fmt: skip
            check_dtype(engine_args.dtype)
            calls.opened = vars(engine_args)
            return cls()

        def __init__(self) -> None:
            self._loop = asyncio.get_running_loop()  # its output handler lives there
            self._llm = AsyncTinyLM()

        async def generate(
            self, prompt: Any, sampling_params: SamplingParams, request_id: str, *, prompt_text: str | None = None,
            lora_request: Any = None, tokenization_kwargs: Any = None, trace_headers: Any = None, priority: int = 0,
            data_parallel_rank: int | None = None, session_id: str | None = None,
        ) -> AsyncIterator[Any]:  # fmt: skip
            assert asyncio.get_running_loop() is self._loop, "the engine belongs to one event loop"
            ids = [*calls.prefix, *prompt_ids(prompt)]
            calls.batches.append([ids])
            calls.sampling.append(sampling_params)
            try:
                await asyncio.sleep(calls.delay)
                answer = await self._llm.chat(NO_MESSAGES, prompt_ids=ids, **sampling_params.ours())
                yield request_output(ids, answer, sampling_params)
            except (asyncio.CancelledError, GeneratorExit):
                calls.aborted += 1
                raise

        def shutdown(self, timeout: float | None = None) -> None:
            calls.closed += 1

    package = types.ModuleType("vllm")
    package.LLM, package.SamplingParams, package.TokensPrompt = LLM, SamplingParams, tokens_prompt  # type: ignore[attr-defined]
    package.AsyncEngineArgs = AsyncEngineArgs  # type: ignore[attr-defined]
    sampling = types.ModuleType("vllm.sampling_params")
    sampling.RequestOutputKind = RequestOutputKind  # type: ignore[attr-defined]
    async_llm = types.ModuleType("vllm.v1.engine.async_llm")
    async_llm.AsyncLLM = AsyncLLM  # type: ignore[attr-defined]
    modules = {
        "vllm": package,
        "vllm.sampling_params": sampling,
        "vllm.v1": types.ModuleType("vllm.v1"),
        "vllm.v1.engine": types.ModuleType("vllm.v1.engine"),
        "vllm.v1.engine.async_llm": async_llm,
    }
    with mock.patch.dict("sys.modules", modules):
        yield calls


# LMDeploy


@dataclass
class GenerationConfig:
    n: int = 1
    max_new_tokens: int = 512
    do_sample: bool = False
    top_p: float = 1.0
    top_k: int = 50
    min_p: float = 0.0
    temperature: float = 0.8
    repetition_penalty: float = 1.0
    ignore_eos: bool = False
    random_seed: int | None = None
    stop_words: list[str] | None = None
    bad_words: list[str] | None = None
    stop_token_ids: list[int] | None = None
    bad_token_ids: list[int] | None = None
    min_new_tokens: int | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    logprobs: int | None = None
    include_stop_str_in_output: bool = False

    def __post_init__(self) -> None:
        assert self.top_k >= 0, "top_k can not be a negative integer"

    def ours(self) -> dict[str, Any]:
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature if self.do_sample else 0,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
            "seed": self.random_seed,
            "logprobs": True,
        }


@dataclass
class PytorchEngineConfig:
    dtype: str = "auto"
    tp: int = 1
    session_len: int | None = None
    max_batch_size: int | None = None
    cache_max_entry_count: float = 0.8
    enable_prefix_caching: bool = False
    logprobs_mode: str | None = None


@dataclass
class PreprocessedRequest:
    session: int
    input_ids: list[int]
    gen_config: GenerationConfig
    consumed: bool = False


@contextmanager
def lmdeploy(old: bool = False) -> Iterator[Calls]:
    """Have `import lmdeploy` give the stand-in; the `old` pipeline is the engine itself and has no `preprocess`."""
    calls = Calls({}, [], [])
    threads: list[Any] = []

    class Engine:
        def __init__(self, config: Any) -> None:
            self.session_len = config.session_len or TinyEngine.load().max_length
            self.raw = config.logprobs_mode is not None
            self._llm = AsyncTinyLM()
            self._sessions: set[int] = set()

        async def _parts(self, session: int, ids: list[int], config: GenerationConfig) -> AsyncIterator[Any]:
            assert asyncio.get_running_loop() is threads[-1].loop, "the engine belongs to one event loop"
            assert session not in self._sessions
            self._sessions.add(session)
            calls.batches.append([ids])
            calls.sampling.append(config)
            try:
                await asyncio.sleep(calls.delay)
                answer = await self._llm.chat(NO_MESSAGES, prompt_ids=ids, **config.ours())
            except (asyncio.CancelledError, GeneratorExit):
                calls.aborted += 1
                raise
            finally:
                self._sessions.discard(session)
            tokens = span(answer)
            steps = [{id_: logprob} for id_, logprob in zip(tokens.ids, tokens.logprobs or (), strict=True)]
            ended = answer.finish_reason == "stop"
            kept = len(tokens.ids) - ended
            yield self._part(ids, answer.text, tokens.ids[:kept], steps[:kept], None)
            last = kept if ended and config.include_stop_str_in_output else len(tokens.ids)
            text = TinyEngine.load().decode(tokens.ids[last:], skip_special_tokens=False)
            yield self._part(ids, text, tokens.ids[last:], steps[last:], answer.finish_reason)

        def _part(self, ids: list[int], text: str, new: list[int], steps: list[Any], finish: str | None) -> Any:
            return types.SimpleNamespace(
                response=text,
                input_token_len=len(ids),
                generate_token_len=len(new),
                finish_reason=finish,
                token_ids=new,
                logprobs=steps if self.raw and steps else None,
            )

    class NewEngine(Engine):
        async def preprocess(
            self, messages: Any, session_id: int, gen_config: Any = None, tools: Any = None,
            reasoning_effort: Any = None, do_preprocess: bool = True, adapter_name: Any = None, input_ids: Any = None,
            enable_thinking: Any = None, chat_template_kwargs: Any = None, media_io_kwargs: Any = None,
            mm_processor_kwargs: Any = None,
        ) -> PreprocessedRequest:  # fmt: skip
            assert (messages is None) != (input_ids is None)
            return PreprocessedRequest(session_id, input_ids, gen_config)

        def generate(self, request: PreprocessedRequest, stream_response: bool = True) -> AsyncIterator[Any]:
            assert not request.consumed
            request.consumed = True
            return self._parts(request.session, request.input_ids, request.gen_config)

    class OldEngine(Engine):
        def generate(
            self, messages: Any, session_id: int, gen_config: Any = None, tools: Any = None,
            reasoning_effort: Any = None, stream_response: bool = True, sequence_start: bool = True,
            sequence_end: bool = True, step: int = 0, do_preprocess: bool = True, adapter_name: Any = None,
            rewind_stop_tokens: bool = False, input_ids: Any = None, enable_thinking: Any = None,
            chat_template_kwargs: Any = None, mm_processor_kwargs: Any = None,
        ) -> AsyncIterator[Any]:  # fmt: skip
            assert (messages is None) != (input_ids is None)
            return self._parts(session_id, input_ids, gen_config)

    class EventLoopThread:
        def __init__(self) -> None:
            self.loop = asyncio.new_event_loop()
            self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
            self.thread.start()

        def close(self) -> None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()

    class Pipeline:
        def __init__(self, config: Any) -> None:
            self.async_engine = NewEngine(config)
            self.internal_thread = threads[-1]

        def close(self) -> None:
            calls.closed += 1

    def pipeline(
        model_path: str, backend_config: Any = None, chat_template_config: Any = None, log_level: str = "WARNING",
        max_log_len: int | None = None, trust_remote_code: bool = False, speculative_config: Any = None,
    ) -> Any:  # fmt: skip
        calls.opened = {"model_path": model_path, **vars(backend_config)}
        threads.append(EventLoopThread())
        if not old:
            return Pipeline(backend_config)
        engine: Any = OldEngine(backend_config)
        engine.internal_thread = threads[-1]
        return engine

    package = types.ModuleType("lmdeploy")
    package.GenerationConfig, package.PytorchEngineConfig = GenerationConfig, PytorchEngineConfig  # type: ignore[attr-defined]
    package.pipeline = pipeline  # type: ignore[attr-defined]
    with mock.patch.dict("sys.modules", {"lmdeploy": package}):
        try:
            yield calls
        finally:
            for thread in threads:
                thread.close()
