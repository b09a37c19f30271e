"""Prompts that go on from each other are kept once, and look as if each had its own."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from lagentlike.agents import AsyncAgent
from lagentlike.llms import AsyncTinyLM
from lagentlike.memory import Memory
from lagentlike.schema import AgentMessage, TokenSpan


def conversation(turns: int, new: int = 40) -> list[TokenSpan]:
    """Answers whose prompts go on from each other, each with `new` tokens more."""
    spans, so_far = [], list(range(new))
    for turn in range(turns):
        ids = [10_000 + turn, 7]
        spans.append(TokenSpan(ids, [-0.5, -0.1], list(so_far)))
        so_far += [*ids, *range(new)]
    return spans


def remembered(spans: list[TokenSpan]) -> Memory:
    memory = Memory()
    for span in spans:
        memory.append(AgentMessage(content="?"))
        memory.append(AgentMessage(content="!", sender="me", tokens=span))
    return memory


def kept(memory: Memory) -> list[TokenSpan]:
    return [message.tokens for message in memory if message.tokens is not None]


def test_spans_that_share_their_prompts_are_what_they_were() -> None:
    spans = conversation(6)
    found = kept(remembered(copy.deepcopy(spans)))
    assert found == spans
    assert [repr(one) for one in found] == [repr(one) for one in spans]
    assert all(type(one.prompt_ids) is list for one in found)
    assert copy.deepcopy(found) == pickle.loads(pickle.dumps(found)) == spans
    found[2].prompt_ids = [1, 2]
    assert [one.prompt_ids for one in found[1:4]] == [spans[1].prompt_ids, [1, 2], spans[3].prompt_ids]


def test_memory_grows_with_the_turns_and_not_with_their_square() -> None:
    def size(turns: int) -> int:
        spans = conversation(turns)
        tracemalloc.start()
        memory = remembered([TokenSpan(one.ids, None, list(one.prompt_ids or ())) for one in spans])
        spans.clear()
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(memory) == 2 * turns
        return used

    assert size(200) < 3 * size(100)  # nearly 4 times as much if each answer held its own


def test_what_was_saved_shares_again_when_it_is_loaded() -> None:
    memory, again = remembered(conversation(5)), Memory()
    again.load(json.loads(json.dumps(memory.save())))
    assert kept(again) == conversation(5)
    assert len({id(one._held[0]) for one in kept(again)}) == 1


def test_a_prompt_that_goes_on_from_nothing_stays_by_itself() -> None:
    first, second = TokenSpan([3], None, [1, 2]), TokenSpan([9], None, [1, 5])
    second.go_on_from(first)
    first.go_on_from(first)
    TokenSpan([1]).go_on_from(first)
    assert (first, second) == (TokenSpan([3], None, [1, 2]), TokenSpan([9], None, [1, 5]))


@pytest.mark.parametrize("at_once", [1, 8])
def test_forks_that_go_on_differently_do_not_touch_each_other(at_once: int) -> None:
    trunk = conversation(3)
    memory = remembered(copy.deepcopy(trunk))

    def branch(number: int) -> list[TokenSpan]:
        fork, last = memory.fork(), trunk[-1]
        prompt = [*(last.prompt_ids or ()), *last.ids]
        for turn in range(20):
            prompt = [*prompt, number, turn]
            fork.append(AgentMessage(content="!", sender="me", tokens=TokenSpan([number], None, list(prompt))))
        return kept(fork)

    with ThreadPoolExecutor(at_once) as pool:
        branches = list(pool.map(branch, range(8)))
    for number, spans in enumerate(branches):
        assert spans[:3] == trunk
        for turn, span in enumerate(spans[3:]):
            begun = [*(trunk[-1].prompt_ids or ()), *trunk[-1].ids]
            assert span.prompt_ids == begun + [one for past in range(turn + 1) for one in (number, past)]


async def test_an_agent_in_training_keeps_each_token_once() -> None:
    agent = AsyncAgent(AsyncTinyLM(max_new_tokens=4)).train()
    for number in range(5):
        await agent(f"{number}?")
    spans = kept(agent.memory.get(0))
    prompts = [one.prompt_ids for one in spans]
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(prompts))
    assert len({id(one._held[0]) for one in spans}) == 1
