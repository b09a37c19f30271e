"""Runs the embedded model: text and messages in, token ids with log-probabilities out, with numpy alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lagentlike.llms.tiny.blas import single_thread
from lagentlike.llms.tiny.chat import render, segments, SPECIAL_TOKENS
from lagentlike.llms.tiny.network import BatchCache, Cache, Network
from lagentlike.llms.tiny.prefix import PrefixStore
from lagentlike.llms.tiny.sampling import log_softmax, Sampler, SamplingParams
from lagentlike.llms.tiny.transcript import Transcript

__all__ = ["Batch", "Generation", "GenerationStep", "Reply", "SamplingParams", "TinyEngine", "collect"]

Array = NDArray[np.float32]
FinishReason = Literal["stop", "length"]
WEIGHTS: Final = Path(__file__).parent / "weights"
_BATCH: Final = 64  # sequences decoded side by side


@dataclass
class Generation:
    """What one prompt gave.

    Args:
        token_ids: The sampled tokens, the end-of-turn token included where it was sampled.
        logprobs: Natural logarithm of each token's probability under the raw logits.
        text: Their text, without the end-of-turn token and cut before a stop text.
        finish_reason: "stop" at the end of the turn or a stop text, "length" at a limit.
        prompt_tokens: Length of the prompt.
        top_logprobs: For every step the most likely tokens as (id, log-probability), where asked for.
    """

    token_ids: list[int]
    logprobs: list[float]
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    top_logprobs: list[list[tuple[int, float]]] | None = None


@dataclass(frozen=True)
class GenerationStep:
    """One sampled token of a stream.

    `text` is new text in whole characters, at times empty; the last step has a `finish_reason`.
    """

    token_id: int
    logprob: float
    text: str
    finish_reason: FinishReason | None = None
    top_logprobs: list[tuple[int, float]] | None = None


class TinyEngine:
    """The embedded model on one core.

    Objects are safe to share between threads. Use `TinyEngine.load()`, which reads the weights once for each directory.

    >>> engine = TinyEngine.load()
    >>> prompt = engine.render([{"role": "user", "content": "Hello"}])
    >>> engine.generate(prompt, SamplingParams(max_new_tokens=20)).finish_reason
    'stop'
    """

    _loaded: ClassVar[dict[Path, TinyEngine]] = {}
    _loading = threading.Lock()

    def __init__(self, path: str | Path) -> None:
        folder = Path(path)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"path={str(path)!r} has no {name}; pass a Hugging Face directory, or None for the embedded weights"
                )
        self.path = folder
        self.prefixes = PrefixStore(Network(folder))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True
        self._start, self._end = (self._special(token) for token in SPECIAL_TOKENS[1:])
        self._stops = frozenset({self._end, self._special(SPECIAL_TOKENS[0])})
        self._pieces = _byte_pieces(self._tokenizer, self.network.vocab_size)
        self._encode_block = lru_cache(maxsize=2048)(self._encode_plain)
        self._newline = self.encode("\n")

    @classmethod
    def load(cls, path: str | Path | None = None) -> TinyEngine:
        """The engine over a directory, the embedded weights by default; the same object for the same directory.

        Raises:
            FileNotFoundError: The directory lacks weights, config or tokenizer.
        """
        folder = Path(path if path is not None else WEIGHTS).resolve()
        with cls._loading:
            if folder not in cls._loaded:
                cls._loaded[folder] = cls(folder)
            return cls._loaded[folder]

    def __repr__(self) -> str:
        return f"TinyEngine({str(self.path)!r}, vocab_size={self.network.vocab_size}, max_length={self.max_length})"

    @property
    def network(self) -> Network:
        """The weights, and the forward passes over them."""
        return self.prefixes.network

    def load_weights(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on with other weights; requests under way end with those that they began with.

        Args:
            tensors: The new weights by their names in a Hugging Face directory, of the shapes they have there; copied.
        """
        self.prefixes = PrefixStore(self.network.with_weights(tensors))

    @property
    def max_length(self) -> int:
        """Most tokens of a prompt and its reply together."""
        return self.network.max_length

    @property
    def end_of_turn(self) -> int:
        """Id of the token that ends a reply."""
        return self._end

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            text: Any text.
            allow_special: Read `<|im_start|>` and the like as the special tokens they spell; otherwise they are plain
                text.
        """
        if not allow_special:
            return list(self._encode_plain(text))
        ids: list[int] = []
        for part in _split_special(text):
            ids += [self._special(part)] if part in SPECIAL_TOKENS else self._encode_plain(part)
        return ids

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""
        pieces = [self._pieces[i] or (b"" if skip_special_tokens else self.token_bytes(i)) for i in ids]
        return b"".join(pieces).decode("utf-8", "replace")

    def token_bytes(self, i: int) -> bytes:
        """The bytes of one token, which may be part of a character; a special token's are those of its name."""
        return self._pieces[i] or str(self._tokenizer.id_to_token(i)).encode()

    def render_text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The conversation as text, the same as the directory's chat template gives."""
        return render(messages, tools, add_generation_prompt)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """The conversation as token ids.

        Control tokens come from the template alone: a message that contains `<|im_end|>` is read as that text.
        """
        ids: list[int] = []
        for block, _ in segments(messages, tools):
            ids += [self._start, *self._encode_block(block), self._end, *self._newline]
        if add_generation_prompt:
            ids += [self._start, *self._encode_block("assistant\n")]
        return ids

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams | None = None) -> Generation:
        """Generate one reply.

        Raises:
            ValueError: The prompt is empty, holds an unknown id or leaves no room within `max_length`.
        """
        return collect(list(self.stream(prompt_ids, params)), len(prompt_ids))

    def stream(self, prompt_ids: Sequence[int], params: SamplingParams | None = None) -> Iterator[GenerationStep]:
        """Generate one reply token by token."""
        params = params or SamplingParams()
        prompt = self.checked(prompt_ids)
        return self._stream(prompt, params)

    def generate_batch(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[Generation]:
        """Generate a reply to every prompt, side by side; what prompts begin with in common is read once.

        Each reply is what `generate` gives for that prompt and those options. For different samples of one prompt pass
        options with different seeds, or with none.
        """
        options = _options(prompts, params)
        if len(prompts) == 1:
            return [self.generate(prompts[0], options[0])]
        steps: list[list[GenerationStep]] = [[] for _ in prompts]
        for taken in self.stream_batch(prompts, options):
            for i, step in taken:
                steps[i].append(step)
        return [collect(s, len(prompt)) for s, prompt in zip(steps, prompts, strict=True)]

    def stream_batch(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> Iterator[list[tuple[int, GenerationStep]]]:
        """Generate a reply to every prompt, side by side, token by token.

        Yields:
            The steps of one round with the indexes of their prompts; prompts whose reply ended are left out.
        """
        options = _options(prompts, params)
        waiting = deque(enumerate(zip([self.checked(prompt) for prompt in prompts], options, strict=True)))
        batch, index_of = Batch(self), dict[Reply, int]()
        while waiting or len(batch):
            chosen = [waiting.popleft() for _ in range(min(batch.room, len(waiting)))]
            for (index, _), reply in zip(chosen, batch.add([one for _, one in chosen]), strict=True):
                index_of[reply] = index
            yield [(index_of[reply], step) for reply, step in batch.step()]

    def logprobs(self, ids: Sequence[int]) -> Array:
        """Teacher-forced float32 log-probabilities, `[len(ids) - 1]`: entry t is of `ids[t + 1]` given those before."""
        checked = self.checked(ids, room=0)
        if len(checked) == 1:
            return np.empty(0, np.float32)
        with single_thread():
            network = self.network
            logits = network.prefill(checked[:-1], network.cache(len(checked)), every=True)
        table = log_softmax(logits)
        chosen: Array = table[np.arange(len(checked) - 1), checked[1:]]
        return chosen

    def _stream(self, prompt: list[int], params: SamplingParams) -> Iterator[GenerationStep]:
        limit = min(params.max_new_tokens, self.max_length - len(prompt))
        prefixes = self.prefixes  # and its weights, to the end of this reply
        with single_thread():
            cache, logits = prefixes.read(prompt, min(limit, 128))
        marks = {len(prompt): logits}
        ids = list(prompt)
        turn = _Turn(self, params, prompt, limit)
        try:
            while True:
                step = turn.take(logits)
                ids.append(step.token_id)
                yield step
                if step.finish_reason is not None:
                    return
                with single_thread():
                    logits = prefixes.network.step(step.token_id, cache)
        finally:
            prefixes.keep(ids, cache, marks)

    def checked(self, ids: Sequence[int], room: int = 1) -> list[int]:
        """The ids of a prompt, if the model can read them and has `room` for more.

        Raises:
            ValueError: There are none, too many, or unknown ones.
        """
        checked = [int(i) for i in ids]
        if not checked:
            raise ValueError("prompt_ids=[] is empty; render at least one message")
        if len(checked) + room > self.max_length:
            raise ValueError(
                f"prompt_ids has {len(checked)} tokens and the model holds {self.max_length}; shorten the conversation"
            )
        if min(checked) < 0 or max(checked) >= self.network.vocab_size:
            raise ValueError(
                f"prompt_ids holds an id outside 0..{self.network.vocab_size - 1}; "
                "use encode() or render() of this engine"
            )
        return checked

    def _encode_plain(self, text: str) -> list[int]:
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:  # half of a surrogate pair, which is in no UTF-8 text
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            ids = self._tokenizer.encode(whole, add_special_tokens=False).ids
        return ids

    def _special(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(
                f"the tokenizer in {str(self.path)!r} has no {token}; pass a directory with a ChatML tokenizer"
            )
        return int(found)


class _Turn:
    """The state of one reply while it is sampled: sampler, text and how much may still come."""

    def __init__(self, engine: TinyEngine, params: SamplingParams, prompt: list[int], limit: int) -> None:
        self._sampler = Sampler(params, prompt)
        self._transcript = Transcript(engine._pieces, params.stop)
        self._stops = engine._stops
        self._left = limit

    def take(self, logits: Array) -> GenerationStep:
        """Sample the next token."""
        token, logprob, top = self._sampler.pick(logits)
        self._left -= 1
        if token in self._stops:
            return GenerationStep(token, logprob, self._transcript.close(), "stop", top)
        text = self._transcript.push(token)
        if self._transcript.stopped:
            return GenerationStep(token, logprob, text, "stop", top)
        if self._left <= 0:
            return GenerationStep(token, logprob, text + self._transcript.close(), "length", top)
        return GenerationStep(token, logprob, text, None, top)


class Reply:
    """One reply on its way in a batch."""

    def __init__(self, engine: TinyEngine, prompt: list[int], params: SamplingParams) -> None:
        self.room = min(params.max_new_tokens, engine.max_length - len(prompt))
        self.prompt = prompt
        self.ids = list(prompt)
        self.cache: Cache | None = None  # what it has read, while it is in no group
        self.logits: Array | None = None
        self._turn = _Turn(engine, params, prompt, self.room)

    @property
    def held(self) -> Cache:
        """What it has read, of a reply in no group."""
        assert self.cache is not None
        return self.cache

    def take(self, logits: Array) -> GenerationStep:
        """Sample the next token."""
        step = self._turn.take(logits)
        self.ids.append(step.token_id)
        return step


class Batch:
    """Replies decoded side by side, a token of each at every step; new ones may join between two steps.

    A reply is the same whoever is decoded beside it. All go through the matrices of a layer together; those that begin
    alike, as with one system prompt, look at what they share together. A reply that is alone takes the shorter way of
    `TinyEngine.stream`. Weights are those that the engine has when the batch begins.

    Args:
        engine: Whose model this is.
    """

    def __init__(self, engine: TinyEngine) -> None:
        self.prefixes = engine.prefixes
        self._engine = engine
        self._new: list[Reply] = []
        self._alone: Reply | None = None
        self._groups: list[_Group] = []

    def __len__(self) -> int:
        return len(self._new) + (self._alone is not None) + sum(len(group.replies) for group in self._groups)

    @property
    def room(self) -> int:
        """How many more replies it takes."""
        return _BATCH - len(self)

    def add(self, requests: Sequence[tuple[list[int], SamplingParams]]) -> list[Reply]:
        """Read prompts (that were `checked`); their first tokens come with the next step."""
        replies = [Reply(self._engine, prompt, params) for prompt, params in requests]
        with single_thread():
            if len(replies) > 1:
                self._read_together(replies)
            elif replies:
                reply = replies[0]
                reply.cache, reply.logits = self.prefixes.read(reply.prompt, min(reply.room, 128))
        self._new += replies
        return replies

    def step(self) -> list[tuple[Reply, GenerationStep]]:
        """The next token of every reply; those that end with it are gone from the batch then."""
        taken = self._decoded()
        for reply, step in taken:
            if step.finish_reason is not None:
                self.drop(reply)
        new, self._new = self._new, []
        first = [(reply, reply.take(reply.logits)) for reply in new if reply.logits is not None]
        self._join([reply for reply, step in first if step.finish_reason is None])
        return taken + first

    def drop(self, reply: Reply) -> None:
        """Work on a reply no longer."""
        if reply is self._alone:
            self._alone = None
            marks = {} if reply.logits is None else {len(reply.prompt): reply.logits}
            self.prefixes.keep(reply.ids, reply.held, marks)
        elif reply in self._new:
            self._new.remove(reply)
        else:
            for group in self._groups:
                group.remove(reply)
            self._groups = [group for group in self._groups if group.replies]

    def _read_together(self, replies: Sequence[Reply]) -> None:
        """Read several prompts; what they begin with in common, and one that is there twice, once."""
        first, length = replies[0].prompt, min(len(reply.prompt) for reply in replies) - 1
        for reply in replies[1:]:
            length = next((i for i in range(length) if reply.prompt[i] != first[i]), length)
        if length:
            shared, logits = self.prefixes.read(first[:length], 0)
            self.prefixes.keep(first[:length], shared, {length: logits})
        done: dict[tuple[int, ...], tuple[Cache, Array]] = {}
        for reply in replies:
            key = tuple(reply.prompt[length:])
            if key not in done:
                done[key] = self.prefixes.read(reply.prompt, 0)
                self.prefixes.keep(reply.prompt, done[key][0], {len(reply.prompt): done[key][1]})
            reply.cache, reply.logits = done[key]

    def _decoded(self) -> list[tuple[Reply, GenerationStep]]:
        """The tokens of the replies that have one already."""
        if self._alone is not None:
            reply = self._alone
            with single_thread():
                logits = self.prefixes.network.step(reply.ids[-1], reply.held)
            return [(reply, reply.take(logits))]
        replies = [reply for group in self._groups for reply in group.replies]
        if not replies:
            return []
        with single_thread():
            tokens = [reply.ids[-1] for reply in replies]
            table = self.prefixes.network.step_batch(tokens, [group.cache for group in self._groups])
        return [(reply, reply.take(logits)) for reply, logits in zip(replies, table, strict=True)]

    def _join(self, replies: list[Reply]) -> None:
        """Let replies be decoded beside the others from now on."""
        if not replies:
            return
        if len(replies) == 1 and not len(self):
            self._alone = replies[0]
            return
        if self._alone is not None:
            replies, self._alone = [self._alone, *replies], None
        rest: dict[tuple[int, ...], list[Reply]] = {}
        for reply in replies:
            fitting = [group for group in self._groups if group.fits(reply)]
            if fitting:
                max(fitting, key=lambda group: len(group.prefix)).add(reply)
            else:
                rest.setdefault(tuple(self._head(reply.prompt)), []).append(reply)
        singles = [group[0] for group in rest.values() if len(group) == 1]
        for head, group in rest.items():
            if len(group) > 1 or len(singles) == 1:
                self._groups.append(_Group(list(head), group))
        if len(singles) > 1:
            first = singles[0].prompt[:1]
            alike = all(reply.prompt[:1] == first for reply in singles)
            self._groups.append(_Group(first if alike else [], singles))

    def _head(self, prompt: list[int]) -> list[int]:
        """What others may begin with too: the system prompt if there is one, else the first token."""
        end = self._engine.end_of_turn
        length = prompt.index(end) + 1 if prompt.count(end) > 1 else 1
        return prompt[:length]


class _Group:
    """Replies of a batch that begin alike."""

    def __init__(self, prefix: list[int], replies: Sequence[Reply]) -> None:
        caches = [reply.held for reply in replies]
        self.prefix = prefix
        self.replies = list(replies)
        room = min(max(reply.room for reply in replies), 128)
        self.cache = BatchCache(caches[0].prefix(len(prefix)), caches, room)
        for reply in replies:
            reply.cache = None

    def fits(self, reply: Reply) -> bool:
        """Whether a reply begins with the prefix and is not so long that all others would have to look further."""
        own = reply.held.length - len(self.prefix)
        near = 0 <= own <= max(64, 2 * int(self.cache.lengths.max()))
        return near and reply.prompt[: len(self.prefix)] == self.prefix

    def add(self, reply: Reply) -> None:
        self.cache.add(reply.held)
        self.replies.append(reply)
        reply.cache = None

    def remove(self, reply: Reply) -> None:
        """Forget a reply, if it is one of these; the last one takes its place."""
        if reply in self.replies:
            place = self.replies.index(reply)
            self.cache.remove(place)
            self.replies[place] = self.replies[-1]
            self.replies.pop()


def collect(steps: Sequence[GenerationStep], prompt_tokens: int) -> Generation:
    """Gather the steps of one reply."""
    reason = steps[-1].finish_reason
    assert reason is not None
    top = None if steps[0].top_logprobs is None else [step.top_logprobs or [] for step in steps]
    text = "".join(step.text for step in steps)
    return Generation(
        [step.token_id for step in steps], [step.logprob for step in steps], text, reason, prompt_tokens, top
    )


def _options(
    prompts: Sequence[Sequence[int]], params: SamplingParams | Sequence[SamplingParams] | None
) -> list[SamplingParams]:
    """The options of every prompt."""
    options = (
        [params or SamplingParams()] * len(prompts)
        if params is None or isinstance(params, SamplingParams)
        else list(params)
    )
    if len(options) != len(prompts):
        raise ValueError(
            f"params has {len(options)} entries for {len(prompts)} prompts; pass one for each, or one for all"
        )
    return options


def _split_special(text: str) -> list[str]:
    """The text cut at the special tokens it spells."""
    parts = [text]
    for token in SPECIAL_TOKENS:
        cut: list[str] = []
        for part in parts:
            pieces = [part] if part in SPECIAL_TOKENS else part.split(token)
            for i, piece in enumerate(pieces):
                cut += [token] * (i > 0) + [piece] * (piece != "")
        parts = cut
    return parts


def _byte_pieces(tokenizer: Tokenizer, size: int) -> list[bytes]:
    """The bytes behind every token id; none for the special tokens and for rows of the embedding no token uses."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
    pieces = [b""] * max(size, tokenizer.get_vocab_size())
    for token, i in tokenizer.get_vocab().items():
        pieces[i] = b"" if token in SPECIAL_TOKENS else bytes(byte_of[character] for character in token)
    return pieces
