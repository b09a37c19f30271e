"""Decodes with a causal language model of transformers: token ids in, sampled ids with log-probabilities out."""

from __future__ import annotations

import inspect
import logging
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import torch
import transformers

from ..errors import InvalidArgument
from ..prompts.chat.tokenizer import ChatTokenizer
from .local import OnStep
from .tiny.engine import collect, Generation, GenerationStep, SamplingParams
from .tiny.transcript import Transcript

__all__ = ["Request", "TorchEngine", "read_model", "read_tokenizer"]

logger = logging.getLogger(__name__)

_BATCH: Final = 64  # sequences decoded side by side
_GROUPS: Final = 4  # batches decoded in turn; later requests wait for one to end, so that batches stay large
_WINDOW_SECONDS: Final = 0.004  # that an idle model waits for more requests after the first
_IDLE_SECONDS: Final = 30.0  # after which the thread ends; the next request starts a new one


def read_model(path: str, device: str | None = None, dtype: str | None = None) -> Any:
    """A causal language model of transformers, on a device; see `HFTransformer` for the arguments.

    Raises:
        InvalidArgument: torch has no such dtype.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    wanted = _dtype(dtype or ("float32" if device == "cpu" else "auto"))
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=wanted)
    return model.to(device)


def read_tokenizer(path: str) -> Any:
    """The tokenizer that is kept beside a model."""
    return transformers.AutoTokenizer.from_pretrained(path)


@dataclass(eq=False)
class Request:
    """One prompt on its way through the engine."""

    prompt: list[int]
    options: SamplingParams
    on_step: OnStep | None = None
    future: Future[Generation] = field(default_factory=Future)
    steps: list[GenerationStep] = field(default_factory=list)
    dropped: bool = False

    def drop(self) -> None:
        """Nobody wants the reply any more."""
        self.dropped = True
        self.future.cancel()


class TorchEngine:
    """A model, its tokenizer, and the one thread that decodes with them.

    Requests that wait when the thread looks become one batch; a few batches run side by side, a token of each in turn.
    """

    def __init__(self, model: Any, chat: ChatTokenizer) -> None:
        _check(model)
        self.model = model.eval()
        self.takes = _takes(model)
        self.chat = chat
        self.stops = chat.eos_ids | _stops(model)
        self.vocab_size = int(model.get_input_embeddings().num_embeddings)
        self.max_length = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 30)
        self._guard = threading.Lock()
        self._waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # copies of a language model share the weights

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """A conversation as the ids that its reply goes on from."""
        return self.chat.encode_chat(messages, tools, add_generation_prompt=True)

    def submit(self, request: Request) -> Request:
        """Put a request in line; its `future` tells the rest."""
        with self._guard:
            if self._pid != os.getpid():  # a forked process has neither the thread nor its requests
                self._waiting, self._pid, self._thread = queue.SimpleQueue(), os.getpid(), None
            self._waiting.put(request)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="lagentlike-hf")
                self._thread.start()
        return request

    def _run(self) -> None:
        groups: list[Iterator[None]] = []
        while True:
            if len(groups) < _GROUPS:
                waiting = self._taken(block=not groups)
                if not waiting and not groups:
                    if self._retire():
                        return
                    continue
                groups += [self._answer(waiting[begin : begin + _BATCH]) for begin in range(0, len(waiting), _BATCH)]
            groups = [group for group in groups if next(group, group) is not group]

    def _taken(self, block: bool) -> list[Request]:
        """All that waits; with `block`, as soon as something does, and what comes within the window."""
        taken: list[Request] = []
        try:
            if block:
                taken.append(self._waiting.get(timeout=_IDLE_SECONDS))
            while True:
                taken.append(self._waiting.get(timeout=_WINDOW_SECONDS) if block else self._waiting.get_nowait())
        except queue.Empty:
            return [request for request in taken if request.future.set_running_or_notify_cancel()]

    def _retire(self) -> bool:
        """Let the thread end, unless a request came just now."""
        with self._guard:
            if not self._waiting.empty():
                return False
            self._thread = None
            return True

    def _answer(self, requests: list[Request]) -> Iterator[None]:
        """Decode a batch, a token of each request a step."""
        try:
            yield from _decode(self, requests)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer to each request; the thread lives
            for request in requests:
                if not request.future.done():
                    request.future.set_exception(error)


def _decode(engine: TorchEngine, requests: list[Request]) -> Iterator[None]:
    """One batch from its prompts to its replies; a request that ends, or that nobody wants any more, leaves it."""
    model, takes = engine.model, engine.takes
    turns = [_Turn(engine, request) for request in requests]
    width = max(len(request.prompt) for request in requests)
    ids = torch.zeros((len(requests), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, request in enumerate(requests):  # on the left, so that all prompts end in one place
        ids[row, width - len(request.prompt) :] = torch.tensor(request.prompt)
        mask[row, width - len(request.prompt) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache: Any = None
    while turns:
        with torch.inference_mode():
            out = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=True,
                **{takes.cache: cache},
                **takes.last_only,
            )
            logits, cache = out.logits[:, -1].float(), getattr(out, takes.cache)
            tokens = _pick(logits, turns)
        going = [row for row, turn in enumerate(turns) if turn.goes_on]
        with torch.inference_mode():
            if len(going) < len(turns):
                turns = [turns[row] for row in going]
                kept = torch.tensor(going, dtype=torch.long, device=model.device)
                if going:
                    cache.batch_select_indices(kept)
                mask, positions, tokens = mask[kept], positions[kept], tokens[kept]
            ids = tokens[:, None]
            mask = torch.cat([mask, mask.new_ones((len(turns), 1))], -1)
            positions = positions[:, -1:] + 1
        yield


def _pick(logits: Any, turns: list[_Turn]) -> Any:
    """Sample the next token of each row, `[n]`, and hand each turn its own."""
    if not torch.isfinite(logits).all(-1).all():
        raise FloatingPointError("the logits are not finite: the weights are damaged, or dtype is too narrow for them")
    logprobs = torch.log_softmax(logits, -1)
    tokens = torch.stack([turn.choose(row) for turn, row in zip(turns, logits, strict=True)])
    chosen = logprobs.gather(-1, tokens[:, None])[:, 0]
    for turn, row, token, logprob in zip(turns, logprobs, tokens.tolist(), chosen.tolist(), strict=True):
        turn.take(token, logprob, row)
    return tokens


class _Turn:
    """The state of one reply while it is sampled."""

    def __init__(self, engine: TorchEngine, request: Request) -> None:
        self._request = request
        self._options = options = request.options
        self._stops = engine.stops
        self._transcript = Transcript([], options.stop)
        self._text = _Unfolding(engine.chat)
        self._left = min(options.max_new_tokens, engine.max_length - len(request.prompt))
        self._random = np.random.Generator(np.random.PCG64(options.seed)) if options.temperature > 0 else None
        self._seen = set(request.prompt) if options.repetition_penalty != 1 else None

    @property
    def goes_on(self) -> bool:
        """Whether there is more to sample."""
        return not self._request.future.done()

    def choose(self, logits: Any) -> Any:
        """The next token, by this reply's own options and random numbers, whatever else is in the batch."""
        options = self._options
        if self._seen:
            seen = torch.tensor(sorted(self._seen), device=logits.device)
            of_seen, penalty = logits[seen], options.repetition_penalty
            logits = logits.index_put((seen,), torch.where(of_seen > 0, of_seen / penalty, of_seen * penalty))
        if self._random is None:
            return logits.argmax()
        weights = torch.softmax(logits.double() / options.temperature, -1)
        order = None
        if options.top_k or options.top_p < 1:
            weights, order = weights.sort(descending=True, stable=True)
            if options.top_k:
                weights = weights[: options.top_k]
        sums = weights.cumsum(-1)
        if options.top_p < 1:
            sums = sums[: int((sums < options.top_p * sums[-1]).sum()) + 1]
        drawn = (sums <= self._random.random() * sums[-1]).sum().clamp(max=len(sums) - 1)
        return drawn if order is None else order[drawn]

    def take(self, token: int, logprob: float, logprobs: Any) -> None:
        """Take the token that was sampled."""
        request = self._request
        if request.future.done():
            return
        if request.dropped:
            request.future.set_exception(CancelledError())
            return
        top = None
        if count := self._options.top_logprobs:
            values, ids = logprobs.topk(min(count, logprobs.shape[-1]))
            top = list(zip(ids.tolist(), values.tolist(), strict=True))
        step = self._step(token, logprob, top)
        request.steps.append(step)
        if request.on_step is not None:
            try:
                request.on_step(step)
            except Exception as error:  # noqa: BLE001  # it goes to whoever asked
                logger.debug("nobody listens to a stream any more: %r", error)
                request.future.set_exception(error)
                return
        if step.finish_reason is not None:
            request.future.set_result(collect(request.steps, len(request.prompt)))

    def _step(self, token: int, logprob: float, top: list[tuple[int, float]] | None) -> GenerationStep:
        self._left -= 1
        if self._seen is not None:
            self._seen.add(token)
        if token in self._stops:
            return GenerationStep(token, logprob, self._end(), "stop", top)
        text = self._transcript.take(self._text.push(token))
        if self._transcript.stopped:
            return GenerationStep(token, logprob, text, "stop", top)
        if self._left <= 0:
            text += self._end()
            return GenerationStep(token, logprob, text, "stop" if self._transcript.stopped else "length", top)
        return GenerationStep(token, logprob, text, None, top)

    def _end(self) -> str:
        """The rest of the text, when no more tokens come."""
        return self._transcript.take(self._text.rest()) + self._transcript.close()


class _Unfolding:
    """The text of tokens as they come, in whole characters.

    A token's text depends on those before it, so the tokens since the last that was sure are decoded with the new one.
    """

    def __init__(self, chat: ChatTokenizer) -> None:
        self._chat = chat
        self._ids: list[int] = []
        self._sure = 0  # ids whose text was given away, of those that are kept
        self._given = ""  # that text

    def push(self, token: int) -> str:
        """Take a token; return the text that is now sure."""
        self._ids.append(token)
        text = self._chat.decode(self._ids)
        if text.endswith("\ufffd") or not text.startswith(self._given):  # part of a character
            return ""
        new = text[len(self._given) :]
        if new:
            self._ids = self._ids[self._sure :]
            self._sure, self._given = len(self._ids), self._chat.decode(self._ids)
        return new

    def rest(self) -> str:
        """What is left when no more tokens come."""
        text = self._chat.decode(self._ids)
        return text[len(self._given) :] if text.startswith(self._given) else ""


@dataclass(frozen=True)
class _Names:
    """What a model calls its cache, and what the option is by which it gives the last logits only."""

    cache: str
    last_only: dict[str, int]


def _check(model: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise InvalidArgument("model", model, "give a causal language model of transformers")


def _takes(model: Any) -> _Names:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    known = inspect.signature(inner.forward).parameters
    last = next((name for name in ("logits_to_keep", "num_logits_to_keep") if name in known), None)
    return _Names("cache" if "cache" in known else "past_key_values", {} if last is None else {last: 1})


def _dtype(name: str) -> Any:
    found = name if name == "auto" else getattr(torch, name, None)
    if found != "auto" and not isinstance(found, torch.dtype):
        raise InvalidArgument("dtype", name, "give 'float32', 'bfloat16', 'float16' or 'auto'")
    return found


def _stops(model: Any) -> frozenset[int]:
    """The ids that end a reply, by the model's settings."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    if ids is None:
        ids = model.config.eos_token_id
    return frozenset(ids if isinstance(ids, list | tuple) else () if ids is None else (ids,))
