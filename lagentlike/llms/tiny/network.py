"""A Llama or Qwen2 decoder in numpy: float32, key-value cache, single rows and batches with a shared prefix."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

__all__ = ["BatchCache", "Cache", "Network"]

Array = NDArray[np.float32]
_BLOCK: Final = 256  # rows of a prefill computed at once; bounds the memory of the attention scores


class Cache:
    """Keys and values of one sequence: `[layers, 2, heads, capacity, head_dim]`, `length` positions of them filled."""

    def __init__(self, layers: int, heads: int, head_dim: int, capacity: int) -> None:
        self.values: Array = np.empty((layers, 2, heads, capacity, head_dim), np.float32)
        self.length = 0

    def reserve(self, extra: int) -> None:
        """Make room for `extra` more positions."""
        needed = self.length + extra
        capacity = self.values.shape[3]
        if needed <= capacity:
            return
        layers, two, heads, _, head_dim = self.values.shape
        grown = np.empty((layers, two, heads, max(needed, capacity * 2), head_dim), np.float32)
        grown[:, :, :, : self.length] = self.values[:, :, :, : self.length]
        self.values = grown

    def prefix(self, length: int, extra: int = 0) -> Cache:
        """A copy of the first `length` positions with room for `extra` more."""
        layers, _, heads, _, head_dim = self.values.shape
        copy = Cache(layers, heads, head_dim, length + extra)
        copy.values[:, :, :, :length] = self.values[:, :, :, :length]
        copy.length = length
        return copy


class BatchCache:
    """Keys and values of sequences that begin alike: one shared prefix, and an own part for each.

    `own` is `[layers, 2, places, heads, capacity, head_dim]`, the first `size` places of it in use; `lengths` says how
    much of its place each sequence has filled.
    """

    def __init__(self, shared: Cache, own: list[Cache], extra: int) -> None:
        layers, _, heads, _, head_dim = shared.values.shape
        self.shared = np.ascontiguousarray(shared.values[:, :, :, : shared.length])
        self.lengths: NDArray[np.intp] = np.zeros(0, np.intp)
        longest = max(cache.length for cache in own) - shared.length
        self.own: Array = np.zeros((layers, 2, len(own), heads, longest + extra, head_dim), np.float32)
        for cache in own:
            self.add(cache)

    @property
    def size(self) -> int:
        """How many sequences there are."""
        return len(self.lengths)

    @property
    def positions(self) -> NDArray[np.intp]:
        """Tokens held of each sequence."""
        held: NDArray[np.intp] = self.lengths + self.shared.shape[3]
        return held

    def add(self, cache: Cache) -> None:
        """Take in a sequence that begins with the prefix."""
        prefix, place = self.shared.shape[3], self.size
        length = cache.length - prefix
        places, capacity = self.own.shape[2], self.own.shape[4]
        self._grow(places if place < places else places * 2, max(capacity, length))
        self.own[:, :, place, :, :length] = cache.values[:, :, :, prefix : cache.length]
        self.lengths = np.append(self.lengths, length)

    def reserve(self) -> None:
        """Make room for one more position of the longest sequence."""
        capacity = self.own.shape[4]
        if int(self.lengths.max()) >= capacity:
            self._grow(self.own.shape[2], capacity * 2 + 16)

    def remove(self, place: int) -> None:
        """Forget a sequence; the last one takes its place."""
        last = self.size - 1
        if place != last:
            self.own[:, :, place] = self.own[:, :, last]
            self.lengths[place] = self.lengths[last]
        self.lengths = self.lengths[:last].copy()

    def _grow(self, places: int, capacity: int) -> None:
        layers, two, held, heads, room, head_dim = self.own.shape
        if (places, capacity) != (held, room):
            grown = np.zeros((layers, two, places, heads, capacity, head_dim), np.float32)
            grown[:, :, :held, :, :room] = self.own
            self.own = grown


class _Layer:
    """The matrices of one layer, transposed for row vectors, with the norms and the score scale folded in."""

    def __init__(self, tensors: dict[str, Array], prefix: str, head_dim: int) -> None:
        norm1, norm2 = tensors[prefix + "input_layernorm.weight"], tensors[prefix + "post_attention_layernorm.weight"]
        scale = head_dim**-0.5
        weights = [tensors[f"{prefix}self_attn.{name}_proj.weight"] for name in "qkv"]
        biases = [tensors[f"{prefix}self_attn.{name}_proj.bias"] for name in "qkv"]
        self.qkv = np.ascontiguousarray((np.concatenate([weights[0] * scale, *weights[1:]]) * norm1).T)
        self.bias = np.concatenate([biases[0] * scale, *biases[1:]])
        self.out = np.ascontiguousarray(tensors[prefix + "self_attn.o_proj.weight"].T)
        shift = tensors.get(prefix + "self_attn.o_proj.bias")  # Llama has one where it has the other biases
        self.shift = shift if shift is not None and shift.any() else None
        gate, up = tensors[prefix + "mlp.gate_proj.weight"], tensors[prefix + "mlp.up_proj.weight"]
        self.gate_up = np.ascontiguousarray((np.concatenate([gate, up]) * norm2).T)
        self.down = np.ascontiguousarray(tensors[prefix + "mlp.down_proj.weight"].T)

    def project(self, mixed: Array) -> Array:
        """What the heads found, as the residual stream takes it."""
        projected: Array = mixed @ self.out
        return projected if self.shift is None else projected + self.shift


class Network:
    """The weights of a Hugging Face directory and the forward passes over them.

    Args:
        path: A directory with `config.json` and `model.safetensors` of a `LlamaForCausalLM` with biases in its
            attention, or of a `Qwen2ForCausalLM`, that has as many key-value heads as heads.
    """

    def __init__(self, path: Path) -> None:
        config: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if not self.runs(config):
            raise ValueError(
                f"path={str(path)!r} holds no Llama or Qwen2 model with full attention heads and biases; "
                "load it with the transformers backend instead"
            )
        self.heads: int = config["num_attention_heads"]
        self.head_dim: int = config["hidden_size"] // self.heads
        self.vocab_size: int = config["vocab_size"]
        self.max_length: int = config["max_position_embeddings"]
        self._eps = np.float32(config["rms_norm_eps"])
        self._width = np.float32(config["hidden_size"])
        self._depth: int = config["num_hidden_layers"]
        half = self.head_dim // 2
        speed = float(config["rope_theta"]) ** (-np.arange(half) * 2.0 / self.head_dim)
        angle = np.arange(self.max_length)[:, None] * speed
        self._cos: Array = np.concatenate([np.cos(angle)] * 2, 1).astype(np.float32)
        self._sin: Array = np.concatenate([-np.sin(angle), np.sin(angle)], 1).astype(np.float32)
        self._take(load_file(path / "model.safetensors"))

    @staticmethod
    def runs(config: Mapping[str, Any]) -> bool:
        """Whether a network of that `config.json` is one of this kind."""
        kind = config.get("model_type")
        return (
            (kind == "qwen2" or (kind == "llama" and bool(config.get("attention_bias"))))
            and config.get("num_key_value_heads") == config.get("num_attention_heads")
            and "rope_theta" in config
            and not config.get("rope_scaling")
        )

    def with_weights(self, tensors: Mapping[str, NDArray[Any]]) -> Network:
        """A network of this shape with other weights, copied; `tensors` go by their names in the directory."""
        other = copy.copy(self)
        other._take(tensors)
        return other

    def _take(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
        self._embedding: Array = tensors["model.embed_tokens.weight"]
        head = tensors.get("lm_head.weight", self._embedding)
        self._head: Array = np.ascontiguousarray((head * tensors["model.norm.weight"]).T)
        self._layers = [_Layer(tensors, f"model.layers.{i}.", self.head_dim) for i in range(self._depth)]

    def cache(self, capacity: int) -> Cache:
        """An empty cache with room for `capacity` tokens."""
        return Cache(len(self._layers), self.heads, self.head_dim, capacity)

    def prefill(self, ids: list[int], cache: Cache, every: bool = False) -> Array:
        """Read tokens into the cache.

        Returns:
            The logits after the last token, `[vocab]`, or after every token, `[len(ids), vocab]`.
        """
        cache.reserve(len(ids))
        hidden = [self._read(ids[begin : begin + _BLOCK], cache) for begin in range(0, len(ids), _BLOCK)]
        if every:
            return self._logits(np.concatenate(hidden))
        return self._logits(hidden[-1][-1])

    def _read(self, ids: list[int], cache: Cache) -> Array:
        """One block of a prefill: `[rows, hidden]` before the last norm."""
        rows, begin = len(ids), cache.length
        end = begin + rows
        x = self._embedding[ids]
        cos, sin = self._cos[begin:end], self._sin[begin:end]
        hidden = np.triu(np.full((rows, end), -np.inf, np.float32), begin + 1)
        for layer, store in zip(self._layers, cache.values, strict=True):
            qkv = (
                (self._norm(x) @ layer.qkv + layer.bias)
                .reshape(rows, 3, self.heads, self.head_dim)
                .transpose(1, 2, 0, 3)
            )
            query = self._rotate(qkv[0], cos, sin)
            store[0, :, begin:end] = self._rotate(qkv[1], cos, sin)
            store[1, :, begin:end] = qkv[2]
            scores = query @ store[0, :, :end].transpose(0, 2, 1)
            scores += hidden
            mixed = _softmax(scores) @ store[1, :, :end]
            x = x + layer.project(mixed.transpose(1, 0, 2).reshape(rows, -1))
            x = x + _swiglu(self._norm(x) @ layer.gate_up) @ layer.down
        cache.length = end
        return x

    def step(self, token: int, cache: Cache) -> Array:
        """Read one token: the logits after it, `[vocab]`."""
        cache.reserve(1)
        position = cache.length
        end = position + 1
        heads, head_dim = self.heads, self.head_dim
        x = self._embedding[token]
        cos, sin = self._cos[position], self._sin[position]
        for layer, store in zip(self._layers, cache.values, strict=True):
            qkv = (self._norm1(x) @ layer.qkv + layer.bias).reshape(3, heads, head_dim)
            turned = self._rotate(qkv[:2], cos, sin)
            store[0, :, position] = turned[1]
            store[1, :, position] = qkv[2]
            scores = (store[0, :, :end] @ turned[0][:, :, None])[:, :, 0]
            mixed = _softmax(scores)[:, None, :] @ store[1, :, :end]
            x = x + layer.project(mixed.reshape(-1))
            x = x + _swiglu(self._norm1(x) @ layer.gate_up) @ layer.down
        cache.length = end
        return self._logits(x)

    def step_batch(self, tokens: list[int], caches: Sequence[BatchCache]) -> Array:
        """Read one token of every sequence, cache after cache: the logits after them, `[batch, vocab]`."""
        for cache in caches:
            cache.reserve()
        batch, heads, head_dim = len(tokens), self.heads, self.head_dim
        positions = np.concatenate([cache.positions for cache in caches])
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]
        looks = [_Look(cache) for cache in caches]
        x = self._embedding[tokens]
        for index, layer in enumerate(self._layers):
            qkv = (self._norm(x) @ layer.qkv + layer.bias).reshape(batch, 3, heads, head_dim)
            turned = self._rotate(qkv[:, :2], cos[:, None], sin[:, None])
            mixed, begin = [], 0
            for look in looks:
                end = begin + look.size
                mixed.append(look.mix(index, turned[begin:end, 0], turned[begin:end, 1], qkv[begin:end, 2]))
                begin = end
            together = mixed[0] if len(mixed) == 1 else np.concatenate(mixed)
            x = x + layer.project(together.reshape(batch, -1))
            x = x + _swiglu(self._norm(x) @ layer.gate_up) @ layer.down
        for cache in caches:
            cache.lengths = cache.lengths + 1
        return self._logits(x)

    def _logits(self, x: Array) -> Array:
        logits: Array = (self._norm1(x) if x.ndim == 1 else self._norm(x)) @ self._head
        return logits

    def _norm(self, x: Array) -> Array:
        scaled: Array = x / np.sqrt(np.mean(x * x, -1, keepdims=True) + self._eps)
        return scaled

    def _norm1(self, x: Array) -> Array:
        scaled: Array = x * (np.float32(1) / np.sqrt(x.dot(x) / self._width + self._eps))
        return scaled

    def _rotate(self, x: Array, cos: Array, sin: Array) -> Array:
        half = self.head_dim // 2
        turned: Array = x * cos
        turned[..., :half] += x[..., half:] * sin[..., :half]
        turned[..., half:] += x[..., :half] * sin[..., half:]
        return turned


class _Look:
    """How the sequences of a cache look back at what they hold, in one step."""

    def __init__(self, cache: BatchCache) -> None:
        self.size = cache.size
        self._shared, self._own = cache.shared, cache.own
        self._lengths = cache.lengths
        self._rows = np.arange(self.size)
        self._width = int(cache.lengths.max()) + 1
        later = np.arange(self._width) > cache.lengths[:, None]
        self._hidden = np.where(later, np.float32(-np.inf), np.float32(0))[:, None]

    def mix(self, index: int, query: Array, key: Array, value: Array) -> Array:
        """The values that the queries of a layer find, `[size, heads, head_dim]`; the new keys and values are kept."""
        size, heads, _ = query.shape
        prefix, width = self._shared.shape[3], self._width
        own = self._own[index][:, :size]
        own[0, self._rows, :, self._lengths] = key
        own[1, self._rows, :, self._lengths] = value
        scores = np.empty((size, heads, prefix + width), np.float32)
        if prefix:
            scores[:, :, :prefix] = (query.transpose(1, 0, 2) @ self._shared[index, 0].transpose(0, 2, 1)).transpose(
                1, 0, 2
            )
        scores[:, :, prefix:] = (own[0, :, :, :width] @ query[:, :, :, None])[..., 0] + self._hidden
        weights = _softmax(scores)
        mixed: Array = (weights[:, :, None, prefix:] @ own[1, :, :, :width])[:, :, 0]
        if prefix:
            mixed = mixed + (weights[:, :, :prefix].transpose(1, 0, 2) @ self._shared[index, 1]).transpose(1, 0, 2)
        return mixed


def _softmax(scores: Array) -> Array:
    """Softmax over the last axis, in place."""
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores


def _swiglu(gate_up: Array) -> Array:
    """silu(gate) * up, with the logistic function written as a tanh, which never overflows."""
    half = gate_up.shape[-1] // 2
    gate = gate_up[..., :half] * np.float32(0.5)
    product: Array = (gate + gate * np.tanh(gate)) * gate_up[..., half:]
    return product
