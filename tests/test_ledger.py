"""The token ledger: splicing, rewritten history, missing ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lagentlike.ledger import SampledTurn, TokenLedger
from lagentlike.schema import TokenSpan


def test_prompts_that_extend_what_was_there_make_one_segment() -> None:
    ledger = TokenLedger()
    ledger.add(TokenSpan([7, 2], [-0.5, -0.1], [1, 5]), 1)
    ledger.add(TokenSpan([8, 2], [-0.25, -0.0], [1, 5, 7, 2, 3, 3]), 3)
    [segment] = ledger.segments
    assert segment.ids == [1, 5, 7, 2, 3, 3, 8, 2]
    assert segment.mask == [False, False, True, True, False, False, True, True]
    assert segment.logprobs == [0.0, 0.0, -0.5, -0.1, 0.0, 0.0, -0.25, -0.0]
    assert segment.turns == [SampledTurn(2, 4, 1), SampledTurn(6, 8, 3)]
    assert (ledger.counts.turns, ledger.counts.extended, ledger.counts.rewritten) == (2, 1, 0)


def test_rewritten_history_begins_a_new_segment_and_loses_nothing() -> None:
    ledger = TokenLedger()
    ledger.add(TokenSpan([7, 7, 2], [-0.1] * 3, [1, 5]), 1)
    ledger.add(TokenSpan([8], [-0.2], [1, 5, 7, 2, 3]), 3)  # a thought was stripped
    ledger.add(TokenSpan([9], [-0.3], [1, 5, 7, 2, 3, 8, 4]), 5)
    first, second = ledger.segments
    assert (first.ids, second.ids) == ([1, 5, 7, 7, 2], [1, 5, 7, 2, 3, 8, 4, 9])
    assert second.mask == [False, False, False, False, False, True, False, True]
    assert (ledger.counts.rewritten, ledger.counts.extended) == (1, 1)


def test_an_answer_without_ids_is_counted_as_missing() -> None:
    ledger = TokenLedger()
    ledger.add(None, 1)
    ledger.add(TokenSpan([4], [-1.0]), 3)
    assert ledger.segments == []
    assert (ledger.counts.turns, ledger.counts.missing) == (2, 2)


def test_a_segment_has_log_probabilities_only_if_each_answer_in_it_does() -> None:
    ledger = TokenLedger()
    ledger.add(TokenSpan([7], [-0.5], [1]), 1)
    ledger.add(TokenSpan([8], None, [1, 7, 3]), 3)
    ledger.add(TokenSpan([9], [-0.5], [1, 7, 3, 8, 3]), 5)
    assert ledger.segments[0].logprobs is None
    assert ledger.segments[0].ids == [1, 7, 3, 8, 3, 9]


def test_log_probabilities_that_are_not_one_a_token_are_none() -> None:
    ledger = TokenLedger()
    ledger.add(TokenSpan([7, 8], [-0.5], [1]), 1)
    assert ledger.segments[0].logprobs is None


Ids = st.lists(st.integers(0, 4), min_size=1, max_size=6)


@given(st.lists(st.tuples(Ids, Ids, st.booleans()), max_size=8))
def test_each_sampled_token_is_in_the_segments_once_and_in_order(
    turns: list[tuple[list[int], list[int], bool]],
) -> None:
    ledger, history, sampled = TokenLedger(), [], []
    for index, (given_ids, ids, rewrite) in enumerate(turns):
        history = given_ids if rewrite else history + given_ids
        ledger.add(TokenSpan(ids, [-1.0] * len(ids), list(history)), index)
        history = history + ids
        sampled += ids
    spliced = [i for segment in ledger.segments for i, made in zip(segment.ids, segment.mask, strict=True) if made]
    assert spliced == sampled
    for segment in ledger.segments:
        assert segment.logprobs == [-1.0 if made else 0.0 for made in segment.mask]
    counts = ledger.counts
    assert counts.turns == len(turns)
    assert counts.extended + counts.rewritten + bool(turns) == len(turns)
