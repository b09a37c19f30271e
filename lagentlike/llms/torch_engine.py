"""Decodes with a causal language model of transformers: token ids in, sampled ids with log-probabilities out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch
import transformers
from transformers.cache_utils import DynamicCache

from ..errors import InvalidArgument
from ..prompts.chat.tokenizer import ChatTokenizer
from .scheduler import fail, Request, Scheduler
from .tiny.engine import GenerationStep
from .tiny.transcript import Transcript
from .torch_prefix import can_be_cut, Layers, state_of, TorchPrefixes

__all__ = ["PREFIX_BYTES", "TorchEngine", "read_model", "read_tokenizer"]

PREFIX_BYTES: Final = 512 * 2**20
_BATCH: Final = 64  # sequences decoded side by side on a CPU
_MOST: Final = 512  # the same on a GPU, where its memory holds them
_LONG: Final = 4096  # tokens of a sequence, by which that is reckoned
_GROUPS: Final = 4  # batches decoded in turn, where they cannot be one; later requests wait for one to end
_READ: Final = 8192  # tokens of prompts, padding included, that are read at once, which bounds the memory
_SHARED: Final = 16  # tokens that several prompts begin with in common, from which on they are read once for all
_WINDOW_SECONDS: Final = 0.004  # that an idle model waits for more requests after the first


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


class TorchEngine:
    """A model, its tokenizer, and the one thread that decodes with them.

    Args:
        model: a causal language model of transformers.
        chat: makes token ids of conversations.
        prefix_bytes: most memory for the keys and values of earlier sequences, so that a prompt that begins as one of
            them is read from there on; 0 keeps none. Models with a sliding window, or with states in place of keys and
            values, read every prompt whole.
    """

    def __init__(self, model: Any, chat: ChatTokenizer, prefix_bytes: int = PREFIX_BYTES) -> None:
        _check(model, prefix_bytes)
        self.model = model.eval()
        self.takes = _takes(model)
        self.chat = chat
        self.stops = chat.eos_ids | _stops(model)
        self.vocab_size = int(model.get_input_embeddings().num_embeddings)
        text = model.config.get_text_config()
        self.max_length = int(getattr(text, "max_position_embeddings", 0) or 1 << 30)
        self.prefixes = TorchPrefixes(model, prefix_bytes)
        self.batch = _batch(model, self.max_length)
        self.reuses = prefix_bytes > 0 and getattr(text, "sliding_window", None) is None
        self.scheduler = Scheduler(lambda: _TorchDecoder(self), "lagentlike-hf", _WINDOW_SECONDS)

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # copies of a language model share the weights

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """A conversation as the ids that its reply goes on from."""
        return self.chat.encode_chat(messages, tools, add_generation_prompt=True)


class _TorchDecoder:
    """The requests under way: one group, or a few where lengths or caches are too different to be one."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self._groups: list[_Group] = []

    @property
    def room(self) -> int:
        """How many more requests it takes now."""
        if len(self._groups) >= _GROUPS:
            return 0
        return self._engine.batch - sum(len(group.turns) for group in self._groups)

    def join(self, requests: list[Request]) -> None:
        """Read prompts and sample their first tokens."""
        state = state_of(self._engine.model)
        try:
            if self._engine.reuses and len(requests) > 1:
                self._read_shared([request.prompt for request in requests], state)
            found = [_Found(_Turn(self._engine, request), *self._held(request.prompt)) for request in requests]
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer to each request; the thread lives
            fail(requests, error)
            return
        for part in _parts(found):
            try:
                group = _Group(self._engine, part, state)
                group.step()
            except Exception as error:  # noqa: BLE001  # as above
                fail([one.turn.request for one in part], error)
                continue
            self._add(group)

    def step(self) -> bool:
        """A token of every request; whether there is more to do."""
        for group in self._groups:
            try:
                group.step()
            except Exception as error:  # noqa: BLE001  # as above
                fail([turn.request for turn in group.turns], error)
                group.turns = []
        self._groups = [group for group in self._groups if group.turns]
        return bool(self._groups)

    def _add(self, group: _Group) -> None:
        if not group.turns:
            return
        for other in self._groups:
            if other.fits(group):
                other.merge(group)
                return
        self._groups.append(group)

    def _held(self, prompt: list[int]) -> tuple[Layers, int]:
        return self._engine.prefixes.longest(prompt) if self._engine.reuses else ([], 0)

    def _read_shared(self, prompts: list[list[int]], state: Any) -> None:
        """Read what all prompts begin with once, so that it is there for each of them."""
        first, length = prompts[0], min(map(len, prompts)) - 1
        for prompt in prompts[1:]:
            length = next((place for place in range(length) if prompt[place] != first[place]), length)
        if length < _SHARED or self._held(first[: length + 1])[1] == length:
            return
        ids = torch.tensor([first[:length]], device=self._engine.model.device)
        _, cache = _forward(
            self._engine, ids, torch.ones_like(ids), torch.arange(length, device=ids.device)[None], None
        )
        if can_be_cut(cache):
            self._engine.prefixes.keep(first[:length], [(keys[0], values[0]) for keys, values in _layers(cache)], state)


@dataclass(slots=True)
class _Found:
    """A reply whose prompt begins as a sequence that was read: the layers of that, and how many tokens of it."""

    turn: _Turn
    layers: Layers
    length: int


class _Group:
    """Replies that go through the network together, padded on the left so that they end in one place.

    Args:
        engine: whose model this is.
        found: the replies; what is not read yet of their prompts is read with the first step.
        state: the `state_of` the model when they were found.
    """

    def __init__(self, engine: TorchEngine, found: list[_Found], state: Any) -> None:
        self.turns = [one.turn for one in found]
        self._engine, self._state = engine, state
        device = engine.model.device
        past = max(one.length for one in found)
        width = max(len(one.turn.request.prompt) - one.length for one in found)
        ids = torch.zeros((len(found), width), dtype=torch.long)
        mask = torch.zeros((len(found), past + width), dtype=torch.long)
        for row, one in enumerate(found):
            new = one.turn.request.prompt[one.length :]
            ids[row, width - len(new) :] = torch.tensor(new)
            mask[row, past - one.length : past] = 1
            mask[row, past + width - len(new) :] = 1
        self._cache: Any = _stacked(found, past) if past else None
        self._ids, self._mask = ids.to(device), mask.to(device)
        self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, past:]

    @property
    def width(self) -> int:
        """Tokens of a row, padding included."""
        return int(self._mask.shape[1])

    def step(self) -> None:
        """Sample a token of every reply; those that end with it are gone from the group then."""
        logits, self._cache = _forward(self._engine, self._ids, self._mask, self._positions, self._cache)
        with torch.inference_mode():
            self._ids = _pick(logits, self.turns)[:, None]
            self._mask = torch.cat([self._mask, self._mask.new_ones((len(self.turns), 1))], -1)
            self._positions = self._positions[:, -1:] + 1
        self._drop_ended()

    def fits(self, other: _Group) -> bool:
        """Whether another group can be part of this one, and no more than half of the places are padding then."""
        if not (can_be_cut(self._cache) and can_be_cut(other._cache)):
            return False
        count = len(self.turns) + len(other.turns)
        filled = len(self.turns) * self.width + len(other.turns) * other.width
        return count <= self._engine.batch and count * max(self.width, other.width) <= 2 * filled

    def merge(self, other: _Group) -> None:
        """Take in the replies of another group that has made a step."""
        width = max(self.width, other.width)
        with torch.inference_mode():
            joined = [
                tuple(
                    torch.cat([_padded(a, width - 1), _padded(b, width - 1)]) for a, b in zip(mine, more, strict=True)
                )
                for mine, more in zip(_layers(self._cache), _layers(other._cache), strict=True)
            ]
            self._cache = _cache_of(joined)
            masks = [torch.nn.functional.pad(group._mask, (width - group.width, 0)) for group in (self, other)]
            self._mask = torch.cat(masks)
            self._positions = torch.cat([self._positions, other._positions])
            self._ids = torch.cat([self._ids, other._ids])
        self.turns = self.turns + other.turns
        if other._state != self._state:
            self._state = None  # of weights that were changed meanwhile

    def _drop_ended(self) -> None:
        """Forget the replies that have ended, or that nobody wants; the next turn may go on from what they read."""
        going = [row for row, turn in enumerate(self.turns) if turn.goes_on]
        if len(going) == len(self.turns):
            return
        if self._engine.reuses and can_be_cut(self._cache):
            for row in set(range(len(self.turns))).difference(going):
                self._keep(row)
        self.turns = [self.turns[row] for row in going]
        if going:
            kept = torch.tensor(going, dtype=torch.long, device=self._mask.device)
            self._cache.batch_select_indices(kept)
            self._mask, self._positions, self._ids = self._mask[kept], self._positions[kept], self._ids[kept]
            self._narrow()

    def _keep(self, row: int) -> None:
        """Remember what was read of a reply: all but the token that was sampled last."""
        places = self._mask[row, :-1].nonzero()[:, 0]
        with torch.inference_mode():
            kept = [tuple(part[row][:, places.to(part.device)] for part in pair) for pair in _layers(self._cache)]
        self._engine.prefixes.keep(self.turns[row].read, kept, self._state)

    def _narrow(self) -> None:
        """Cut off places that are padding in every row."""
        empty = int(self._mask.any(0).nonzero()[0])
        if empty and can_be_cut(self._cache):
            with torch.inference_mode():
                self._cache = _cache_of([(k[..., empty:, :], v[..., empty:, :]) for k, v in _layers(self._cache)])
            self._mask = self._mask[:, empty:]


def _parts(found: list[_Found]) -> list[list[_Found]]:
    """The prompts in groups that are small enough to be read at once, and of like length."""
    parts: list[list[_Found]] = []
    for one in sorted(found, key=lambda one: len(one.turn.request.prompt)):
        if parts:
            part = [*parts[-1], one]
            lengths = [len(each.turn.request.prompt) for each in part]
            new = max(length - each.length for each, length in zip(part, lengths, strict=True))
            if len(part) * new <= _READ and len(part) * lengths[-1] <= 2 * sum(lengths) + _READ:
                parts[-1].append(one)
                continue
        parts.append([one])
    return parts


def _forward(engine: TorchEngine, ids: Any, mask: Any, positions: Any, cache: Any) -> tuple[Any, Any]:
    """The logits after the last of the ids, `[rows, vocab]`, and the cache that has read them."""
    with torch.inference_mode():
        out = engine.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **{engine.takes.cache: cache},
            **engine.takes.last_only,
        )
        return out.logits[:, -1].float(), getattr(out, engine.takes.cache)


def _layers(cache: Any) -> Layers:
    """The keys and values of a cache that can be cut."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def _cache_of(layers: Sequence[Any]) -> Any:
    """A cache with these keys and values, `[rows, heads, length, width]` each."""
    cache = DynamicCache()
    for number, (keys, values) in enumerate(layers):
        cache.update(keys, values, number)
    return cache


def _stacked(found: list[_Found], past: int) -> Any:
    """One cache of what is held of each reply, `past` places wide, padded on the left."""
    model = next(one.layers for one in found if one.length)

    def stack(layer: int, kind: int) -> Any:
        like = model[layer][kind]
        table = like.new_zeros((len(found), like.shape[0], past, like.shape[2]))
        for row, one in enumerate(found):
            if one.length:
                table[row, :, past - one.length :] = one.layers[layer][kind][:, : one.length]
        return table

    with torch.inference_mode():
        return _cache_of([(stack(layer, 0), stack(layer, 1)) for layer in range(len(model))])


def _padded(part: Any, width: int) -> Any:
    """Keys or values with empty places on the left, so that there are `width`."""
    return torch.nn.functional.pad(part, (0, 0, width - part.shape[-2], 0))


def _pick(logits: Any, turns: list[_Turn]) -> Any:
    """Sample the next token of each row, `[n]`, and hand each turn its own."""
    if not torch.isfinite(logits).all(-1).all():
        raise FloatingPointError("the logits are not finite: the weights are damaged, or dtype is too narrow for them")
    logprobs = torch.log_softmax(logits, -1)
    tokens = _chosen(logits, turns)
    chosen = logprobs.gather(-1, tokens[:, None])[:, 0]
    for turn, row, token, logprob in zip(turns, logprobs, tokens.tolist(), chosen.tolist(), strict=True):
        turn.take(token, logprob, row)
    return tokens


def _chosen(logits: Any, turns: list[_Turn]) -> Any:
    """The next token of each row, `[n]`: those that are just drawn all at once, which matters on a GPU."""
    tokens = logits.argmax(-1)
    drawn = [row for row, turn in enumerate(turns) if turn.just_draws]
    if drawn:
        rows = logits if len(drawn) == len(turns) else logits[drawn]
        told = [(turns[row].temperature, turns[row].draw()) for row in drawn]
        temperatures, draws = torch.tensor(told, dtype=torch.float64, device=logits.device).T[:, :, None]
        sums = torch.softmax(rows.double() / temperatures, -1).cumsum(-1)
        tokens[drawn] = (sums <= draws * sums[:, -1:]).sum(-1).clamp(max=sums.shape[-1] - 1)
    for row, turn in enumerate(turns):
        if not (turn.just_draws or turn.is_greedy):
            tokens[row] = turn.choose(logits[row])
    return tokens


class _Turn:
    """The state of one reply while it is sampled."""

    def __init__(self, engine: TorchEngine, request: Request) -> None:
        self.request = request
        self._options = options = request.params
        self._stops = engine.stops
        self._transcript = Transcript([], options.stop)
        self._text = _Unfolding(engine.chat)
        self._left = min(options.max_new_tokens, engine.max_length - len(request.prompt))
        self._random = np.random.Generator(np.random.PCG64(options.seed)) if options.temperature > 0 else None
        self._seen = set(request.prompt) if options.repetition_penalty != 1 else None

    @property
    def goes_on(self) -> bool:
        """Whether there is more to sample."""
        return not self.request.future.done()

    @property
    def read(self) -> list[int]:
        """The tokens that went through the network: all but the one that was sampled last."""
        return self.request.prompt + [step.token_id for step in self.request.steps[:-1]]

    @property
    def temperature(self) -> float:
        """What its logits are divided by."""
        return self._options.temperature

    @property
    def is_greedy(self) -> bool:
        """Whether it takes the likeliest token."""
        return self._random is None and self._seen is None

    @property
    def just_draws(self) -> bool:
        """Whether it draws from all tokens as likely as they are."""
        options = self._options
        return self._random is not None and self._seen is None and not options.top_k and options.top_p >= 1

    def draw(self) -> float:
        """Its next random number, from 0 to 1."""
        assert self._random is not None
        return float(self._random.random())

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
        drawn = (sums <= self.draw() * sums[-1]).sum().clamp(max=len(sums) - 1)
        return drawn if order is None else order[drawn]

    def take(self, token: int, logprob: float, logprobs: Any) -> None:
        """Take the token that was sampled."""
        request = self.request
        if request.dropped:
            fail([request], CancelledError())
            return
        top = None
        if count := self._options.top_logprobs:
            values, ids = logprobs.topk(min(count, logprobs.shape[-1]))
            top = list(zip(ids.tolist(), values.tolist(), strict=True))
        request.take(self._step(token, logprob, top))

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


def _check(model: Any, prefix_bytes: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise InvalidArgument("model", model, "give a causal language model of transformers")
    if isinstance(prefix_bytes, bool) or not isinstance(prefix_bytes, int) or prefix_bytes < 0:
        raise InvalidArgument("prefix_bytes", prefix_bytes, "give a number of bytes; 0 keeps nothing")


def _takes(model: Any) -> _Names:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    known = inspect.signature(inner.forward).parameters
    last = next((name for name in ("logits_to_keep", "num_logits_to_keep") if name in known), None)
    return _Names("cache" if "cache" in known else "past_key_values", {} if last is None else {last: 1})


def _batch(model: Any, longest: int) -> int:
    """How many sequences are decoded side by side: on a GPU, as many as half of its free memory holds."""
    if model.device.type != "cuda":
        return _BATCH
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(1, min(_MOST, free // 2 // (_token_bytes(model) * min(longest, _LONG))))


def _token_bytes(model: Any) -> int:
    """Bytes of the keys and values of a token, with the most heads that there can be."""
    text = model.config.get_text_config()
    heads = int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    return int(2 * text.num_hidden_layers * heads * width * model.dtype.itemsize)


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
