"""Several models as one: who is asked where the first fails, and who is not."""

from __future__ import annotations

from typing import Any

import pytest

from lagentlike.agents import Agent
from lagentlike.budget import Budget
from lagentlike.errors import (
    AuthenticationFailed,
    ContextLengthExceeded,
    InvalidArgument,
    RequestRefused,
    ScriptExhausted,
    ServerError,
    StreamTruncated,
)
from lagentlike.llms import AsyncFallbackLLM, AsyncScriptedLLM, FallbackLLM, GPTAPI, ScriptedLLM

from .fault_server import answer, FaultServer, refuse

HELLO: Any = [{"role": "user", "content": "Hello"}]


async def texts_of(llm: Any, streamed: bool) -> list[str]:
    """What a model of either colour says, part by part or as a whole."""
    if isinstance(llm, AsyncFallbackLLM):
        return [str(item[2]) async for item in llm.stream_chat(HELLO)] if streamed else [str(await llm.chat(HELLO))]
    return [str(item[2]) for item in llm.stream_chat(HELLO)] if streamed else [str(llm.chat(HELLO))]


both = pytest.mark.parametrize(("kind", "scripted"), [(FallbackLLM, ScriptedLLM), (AsyncFallbackLLM, AsyncScriptedLLM)])
both_ways = pytest.mark.parametrize("streamed", [False, True])


@both
@both_ways
async def test_the_next_model_is_asked_where_one_fails(kind: Any, scripted: Any, streamed: bool) -> None:
    first, second = scripted([ServerError("down", status=503)] * 2), scripted(["one", "two"])
    llm = kind([first, second])
    assert (await texts_of(llm, streamed))[-1] == "one"
    assert (await texts_of(llm, streamed))[-1] == "two"  # the first one has its chance again
    assert (first.answered, second.answered) == (2, 2)


@both
@both_ways
@pytest.mark.parametrize(
    "error", [RequestRefused("no"), AuthenticationFailed("no"), ContextLengthExceeded("no"), ScriptExhausted("no")]
)
async def test_a_refused_request_is_not_made_again(kind: Any, scripted: Any, streamed: bool, error: Exception) -> None:
    second = scripted(["unasked"])
    with pytest.raises(type(error)):
        await texts_of(kind([scripted([error]), second]), streamed)
    assert second.answered == 0


@both
async def test_a_stream_that_has_begun_is_not_started_anew(kind: Any, scripted: Any) -> None:
    second = scripted(["unasked"])
    with pytest.raises(StreamTruncated):
        await texts_of(kind([scripted([StreamTruncated("cut", partial="Hel")]), second]), True)
    assert second.answered == 0


@both
@both_ways
async def test_the_last_model_s_error_is_raised(kind: Any, scripted: Any, streamed: bool) -> None:
    with pytest.raises(ServerError, match="second"):
        await texts_of(kind([scripted([ServerError("first")]), scripted([ServerError("second")])]), streamed)


def test_each_request_is_counted_once() -> None:
    first, second = ScriptedLLM([ServerError("down")]), ScriptedLLM(["here"])
    with Budget(requests=5) as budget:
        FallbackLLM([first, second]).chat(HELLO)
    assert budget.used.requests == 2  # the one that failed was made too
    assert (first.usage.requests, second.usage.requests) == (0, 1)


def test_it_shows_its_models_and_lends_what_the_first_has() -> None:
    llm = FallbackLLM([GPTAPI("big", key=None, api_base="http://127.0.0.1:1/v1"), ScriptedLLM(["x"])])
    assert repr(llm) == "FallbackLLM('big or scripted')"
    assert llm.url.host == "127.0.0.1"
    assert not hasattr(llm, "tokenize")
    assert Agent(llm).summary().rows[0]["model"] == "big or scripted"


@pytest.mark.parametrize("llms", [[], "gpt-4o", [AsyncScriptedLLM(["x"])], None])
def test_it_takes_models_of_its_own_colour(llms: Any) -> None:
    with pytest.raises(InvalidArgument, match="llms"):
        FallbackLLM(llms)


def test_retries_come_before_the_fallback(no_leaks: None) -> None:
    with FaultServer(refuse(503, headers={"Retry-After": "0"})) as down, FaultServer(answer("from the second")) as up:
        first = GPTAPI("a", key=None, api_base=down.url, retry=1)
        second = GPTAPI("b", key=None, api_base=up.url)
        assert FallbackLLM([first, second]).chat(HELLO) == "from the second"
        assert (len(down.requests), len(up.requests)) == (2, 1)
        first.close()
        second.close()


def test_parameters_are_changed_in_all_models() -> None:
    first, second = ScriptedLLM(["x"]), ScriptedLLM(["x"])
    FallbackLLM([first, second]).update_gen_params(temperature=0.5)
    assert (first.gen_params["temperature"], second.gen_params["temperature"]) == (0.5, 0.5)
