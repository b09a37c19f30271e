"""How the next token is picked from the logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sampler", "SamplingParams", "log_softmax"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class SamplingParams:
    """Options of one generation.

    Args:
        max_new_tokens: Upper bound of the tokens sampled.
        temperature: 0 takes the most likely token; above, logits are divided by it.
        top_k: Sample among the k most likely tokens; 0 keeps all.
        top_p: Sample among the fewest tokens whose probabilities sum to p.
        seed: Makes sampling repeatable; None draws a fresh one.
        stop: Texts that end the generation; they are not part of its text.
        repetition_penalty: Above 1 makes tokens that are already there less likely (Keskar et al., 2019).
        top_logprobs: Report so many of the most likely tokens at every step.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens!r} generates nothing; pass 1 or more")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature!r} is negative; pass 0 for the most likely token, or more")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k!r} is negative; pass 0 to keep all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p!r} is outside (0, 1]; pass 1 to keep all tokens")
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty={self.repetition_penalty!r} is not positive; pass 1 for none")
        if self.top_logprobs < 0:
            raise ValueError(f"top_logprobs={self.top_logprobs!r} is negative; pass 0 for none")
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise ValueError(f"stop={self.stop!r} must be a tuple of non-empty strings, such as ('\\n',)")


class Sampler:
    """Picks the tokens of one sequence.

    The log-probability that goes with a token is the model's own: the log-softmax of the raw logits, whatever
    temperature, truncation or penalty the token was picked with. It equals what a teacher-forced pass gives.
    """

    def __init__(self, params: SamplingParams, prompt: list[int]) -> None:
        self._params = params
        self._random = np.random.Generator(np.random.PCG64(params.seed)) if params.temperature > 0 else None
        self._seen = set(prompt) if params.repetition_penalty != 1 else None

    def pick(self, logits: Array) -> tuple[int, float, list[tuple[int, float]] | None]:
        """The token, its log-probability, and the most likely tokens with theirs where asked for."""
        if not np.isfinite(logits).all():
            raise FloatingPointError("the logits are not finite: the weights are damaged; install the package again")
        adjusted = self._penalised(logits)
        token = int(adjusted.argmax()) if self._random is None else self._draw(adjusted)
        if self._seen is not None:
            self._seen.add(token)
        logprobs = log_softmax(logits)
        top = None
        if self._params.top_logprobs:
            best = np.argsort(-logprobs, kind="stable")[: self._params.top_logprobs]
            top = [(int(i), float(logprobs[i])) for i in best]
        return token, float(logprobs[token]), top

    def _penalised(self, logits: Array) -> Array:
        if not self._seen:
            return logits
        adjusted = logits.copy()
        seen = np.fromiter(self._seen, np.intp)
        chosen = adjusted[seen]
        penalty = np.float32(self._params.repetition_penalty)
        adjusted[seen] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
        return adjusted

    def _draw(self, logits: Array) -> int:
        assert self._random is not None
        params = self._params
        scaled = logits.astype(np.float64) / params.temperature
        if not params.top_k and params.top_p == 1:  # nothing is cut off, and sorting would take most of the time
            cumulative = np.cumsum(np.exp(scaled - scaled.max()))
            place = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
            return min(int(place), len(cumulative) - 1)
        order = np.argsort(-scaled, kind="stable")
        if params.top_k:
            order = order[: params.top_k]
        weights = np.exp(scaled[order] - scaled[order[0]])
        cumulative = np.cumsum(weights)
        if params.top_p < 1:
            keep = int(np.searchsorted(cumulative, params.top_p * cumulative[-1])) + 1
            cumulative = cumulative[:keep]
        place = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
        return int(order[min(int(place), len(cumulative) - 1)])


def log_softmax(logits: Array) -> Array:
    """The logarithms of the probabilities over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
