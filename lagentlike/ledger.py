"""The token ledger: what a model saw and sampled in one conversation, spliced from ids and never tokenized again."""

from __future__ import annotations

from dataclasses import dataclass, field

from .schema import TokenSpan

__all__ = ["LedgerCounts", "SampledTurn", "Segment", "TokenLedger"]


@dataclass(slots=True, frozen=True)
class SampledTurn:
    """The tokens `start` to `stop` (exclusive) of a segment are one answer: message number `message`."""

    start: int
    stop: int
    message: int

    def __len__(self) -> int:
        """How many there are; 0 where nothing came before a stop word that the engine keeps to itself."""
        return self.stop - self.start


@dataclass(slots=True)
class Segment:
    """One unbroken run of tokens as a model read and wrote them.

    Attributes:
        ids: all token ids, `[length]`.
        mask: true on the tokens that the model sampled, its end-of-turn token included, `[length]`.
        logprobs: their natural log-probabilities when they were sampled, 0.0 on all other tokens, `[length]`; None
            where the engine did not give them for every answer of the segment.
        turns: the answers in it, in order.
    """

    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    logprobs: list[float] | None = field(default_factory=list)
    turns: list[SampledTurn] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, ids: list[int]) -> None:
        """Append tokens that the model was given."""
        self.ids += ids
        self.mask += [False] * len(ids)
        if self.logprobs is not None:
            self.logprobs += [0.0] * len(ids)

    def sample(self, ids: list[int], logprobs: list[float] | None, message: int) -> None:
        """Append tokens that the model made."""
        start = len(self.ids)
        self.ids += ids
        self.mask += [True] * len(ids)
        if self.logprobs is not None and logprobs is not None and len(logprobs) == len(ids):
            self.logprobs += logprobs
        else:
            self.logprobs = None
        self.turns.append(SampledTurn(start, len(self.ids), message))


@dataclass(slots=True)
class LedgerCounts:
    """How the answers of a conversation went into its ledger.

    Attributes:
        turns: answers of the model.
        extended: answers whose prompt went on from the ids so far.
        rewritten: answers whose prompt did not, because history was rewritten: each began a new segment.
        missing: answers for which the engine gave no ids; they are in no segment.
    """

    turns: int = 0
    extended: int = 0
    rewritten: int = 0
    missing: int = 0


class TokenLedger:
    """Splices the answers of one conversation into segments of token ids.

    >>> ledger = TokenLedger()
    >>> ledger.add(TokenSpan([7, 8], [-0.1, -0.2], prompt_ids=[1, 2, 3]), message=1)
    >>> ledger.add(TokenSpan([9], [-0.3], prompt_ids=[1, 2, 3, 7, 8, 4]), message=3)
    >>> [segment] = ledger.segments
    >>> segment.ids, [int(sampled) for sampled in segment.mask]
    ([1, 2, 3, 7, 8, 4, 9], [0, 0, 0, 1, 1, 0, 1])
    """

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.counts = LedgerCounts()

    def add(self, span: TokenSpan | None, message: int) -> None:
        """Add one answer.

        Args:
            span: its tokens, as the engine gave them; without `prompt_ids` or without a span it only counts as missing.
            message: its number among the conversation's messages.
        """
        self.counts.turns += 1
        if span is None or span.prompt_ids is None:
            self.counts.missing += 1
            return
        prompt = span.prompt_ids
        segment = self.segments[-1] if self.segments else None
        if segment is not None and prompt[: len(segment)] == segment.ids:
            self.counts.extended += 1
        else:
            self.counts.rewritten += segment is not None
            segment = Segment()
            self.segments.append(segment)
        segment.read(prompt[len(segment) :])
        segment.sample(span.ids, span.logprobs, message)
