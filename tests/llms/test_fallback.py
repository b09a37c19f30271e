"""Several models as one: who is asked where the first fails, and who is not."""

from __future__ import annotations

from typing import Any

import pytest

from lagentlike.agents import Agent
from lagentlike.budget import Budget
from lagentlike.errors import (
    AuthenticationFailed,
    BadResponse,
    ConnectFailed,
    ContextLengthExceeded,
    InvalidArgument,
    LimiterTimeout,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    RequestTimeout,
    ResponseTooLarge,
    ScriptExhausted,
    ServerError,
    StreamTruncated,
)
from lagentlike.llms import (
    AsyncFallbackLLM,
    AsyncScriptedLLM,
    CachedLLM,
    fallback,
    FallbackLLM,
    GPTAPI,
    ScriptedLLM,
    TinyLM,
)

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
    llm = kind([first, second], cooldown=0)
    assert (await texts_of(llm, streamed))[-1] == "one"
    assert (await texts_of(llm, streamed))[-1] == "two"  # the first one has its chance again
    assert (first.answered, second.answered) == (2, 2)


@both
@both_ways
@pytest.mark.parametrize(
    "error", [RequestRefused("no", status=400), RequestRefused("no", status=422), ScriptExhausted("no")]
)
async def test_a_refused_request_is_not_made_again(kind: Any, scripted: Any, streamed: bool, error: Exception) -> None:
    second = scripted(["unasked"])
    with pytest.raises(type(error)):
        await texts_of(kind([scripted([error]), second]), streamed)
    assert second.answered == 0


@both
@both_ways
@pytest.mark.parametrize(
    "error",
    [
        AuthenticationFailed("another server has another key", status=401),
        RequestRefused("no such model here", status=404),
        ContextLengthExceeded("too long for this one", status=400),
        RateLimited("busy"),
        QuotaExhausted("used up"),
        LimiterTimeout("no room"),
        ConnectFailed("nobody there"),
        RequestTimeout("too slow"),
        ServerError("down"),
        BadResponse("unreadable"),
        StreamTruncated("nothing came"),
        ResponseTooLarge("endless"),
    ],
)
async def test_what_is_one_model_s_fault_is_asked_of_the_next(
    kind: Any, scripted: Any, streamed: bool, error: Exception
) -> None:
    assert (await texts_of(kind([scripted([error]), scripted(["from the second"])]), streamed))[-1] == "from the second"


@both
async def test_the_errors_to_go_on_after_can_be_named(kind: Any, scripted: Any) -> None:
    def llm(error: Exception, on: Any) -> Any:
        return kind([scripted([error]), scripted(["second"])], on=on)

    assert await texts_of(llm(RequestRefused("no"), RequestRefused), False) == ["second"]
    assert await texts_of(llm(ServerError("no"), lambda error: str(error) == "no"), False) == ["second"]
    for on in ((RateLimited, ConnectFailed), lambda error: False):
        with pytest.raises(ServerError):
            await texts_of(llm(ServerError("down"), on), False)


@both
async def test_a_model_that_is_down_is_asked_last_for_a_while(
    kind: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(fallback, "_now", lambda: now)
    first = scripted([ServerError("down"), RateLimited("busy", retry_after=90), "first again", "and again"])
    second = scripted(["a", "b", ServerError("down too"), "c"])
    llm = kind([first, second], cooldown=30)
    assert await texts_of(llm, False) == ["a"]
    now += 29
    assert await texts_of(llm, False) == ["b"]
    assert first.answered == 1
    now += 2
    with pytest.raises(ServerError):  # the first was busy, then the second failed
        await texts_of(llm, False)
    assert (first.answered, second.answered) == (2, 3)
    assert await texts_of(llm, False) == ["first again"]  # both rest: then it goes as ever
    now += 31
    assert await texts_of(llm, False) == ["c"]  # the first was told to wait longer
    now += 60
    assert await texts_of(llm, False) == ["and again"]


@both
async def test_what_is_wrong_with_one_request_lets_no_model_rest(kind: Any, scripted: Any) -> None:
    first, second = scripted([ContextLengthExceeded("long"), BadResponse("odd"), "fits"]), scripted(["a", "b"])
    llm = kind([first, second])
    assert [(await texts_of(llm, False))[0] for _ in range(3)] == ["a", "b", "fits"]


@both
async def test_in_a_batch_each_conversation_falls_by_itself(kind: Any, scripted: Any) -> None:
    def first_answers(messages: Any, params: Any) -> Any:
        return ServerError("down") if "2" in messages[-1]["content"] else f"first {params.get('seed')}"

    first, second = scripted(first_answers), scripted(lambda messages, params: f"second {params.get('seed')}")
    batch = [[{"role": "user", "content": str(number)}] for number in range(4)]
    asked = kind([first, second], cooldown=0).chat(batch, seed=10)
    answers = await asked if kind is AsyncFallbackLLM else asked
    assert answers == ["first 10", "first 11", "second 12", "first 13"]
    assert second.answered == 1


def test_the_error_tells_of_all_that_failed() -> None:
    with pytest.raises(ServerError, match="second") as failed:
        FallbackLLM([ScriptedLLM([RateLimited("first")]), ScriptedLLM([ServerError("second")])]).chat(HELLO)
    assert failed.value.__notes__ == ["before, another model failed: RateLimited: first"]


@pytest.mark.parametrize(
    "options", [{"on": ValueError}, {"on": ("x",)}, {"on": 5}, {"cooldown": -1}, {"cooldown": None}]
)
def test_wrong_options_are_named(options: Any) -> None:
    (name,) = options
    with pytest.raises(InvalidArgument, match=name):
        FallbackLLM([ScriptedLLM(["x"])], **options)


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


def test_its_usage_is_that_of_all_its_models() -> None:
    first, second = ScriptedLLM(["a", ServerError("down")]), ScriptedLLM(["b"])
    llm = FallbackLLM([first, second])
    assert [llm.chat(HELLO), llm.chat(HELLO)] == ["a", "b"]
    assert llm.usage.requests == 2
    assert llm.gen_params is first.gen_params
    assert not llm.real


def test_a_seed_that_is_none_is_the_model_s_to_refuse() -> None:
    hello = [{"role": "user", "content": "Hello?"}]
    for llm in (FallbackLLM([TinyLM()]), CachedLLM(TinyLM())):
        with pytest.raises(InvalidArgument, match="seed='x'"):
            llm.chat([hello, hello], seed="x")


def test_a_model_that_stands_there_twice_is_counted_once() -> None:
    model = ScriptedLLM(["a"])
    llm = FallbackLLM([model, model])
    llm.chat([{"role": "user", "content": "Hello?"}])
    assert llm.usage == model.usage


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
