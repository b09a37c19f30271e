"""The browser as a tool: under executors and agents, in both colours, against a site on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lagentlike import ReAct, ScriptedLLM
from lagentlike.actions import AsyncActionExecutor, AsyncWebBrowser, BingSearch, WebBrowser
from lagentlike.concurrency import Stop
from lagentlike.errors import InvalidArgument
from lagentlike.schema import ActionStatusCode, AgentMessage, ToolCall

from .calls import call
from .web_site import Answer, Asked, recorded, redirect, Site

KEY = "hush-hush"


def found_at(site: Site, *paths: str) -> Answer:
    """What Bing answers: those pages of the site."""
    pages = [{"url": f"{site.url}{path}", "name": path, "snippet": "seen"} for path in paths]
    return Answer(json.dumps({"webPages": {"value": pages}}).encode(), "application/json")


@pytest.fixture
def site() -> Iterator[Site]:
    with Site({"/tea": recorded("article.html"), "/news": recorded("news.html")}) as site:
        site.routes["/bing"] = found_at(site, "/tea", "/missing", "/news")
        yield site


@pytest.fixture(params=[WebBrowser, AsyncWebBrowser])
def browser(request: pytest.FixtureRequest, site: Site) -> Iterator[WebBrowser]:
    made = request.param("BingSearch", timeout=5, allow_private=True, api_key=KEY, endpoint=f"{site.url}/bing")
    yield made
    made.close()


def test_it_searches_and_reads_what_it_found(browser: WebBrowser) -> None:
    found = json.loads(call(browser, "search", query="tea pots").text)
    assert [page["title"] for page in found.values()] == ["/tea", "/missing", "/news"]
    assert set(found["0"]) == {"url", "title", "summ"}
    read = json.loads(call(browser, "select", select_ids=[0, 1]).text)
    assert read["0"]["content"].startswith("Teapot - Example Encyclopedia\n\n# Teapot")
    assert "answered 404 Not Found" in read["1"]["content"]


def test_several_questions_at_once_give_each_page_once(browser: WebBrowser, site: Site) -> None:
    pages = [{"url": f"{site.url}/tea", "name": "T"}]
    site.routes["/bing"] = lambda asked: Answer(
        json.dumps({"webPages": {"value": [{**pages[0], "snippet": asked.query["q"]}]}}).encode()
        if asked.query["q"] != "bad"
        else b"", "application/json",
    )  # fmt: skip
    found = json.loads(call(browser, "search", query=["first", "bad", "second"]).text)
    assert [page["summ"] for page in found.values()] == ["first\nsecond"]
    assert call(browser, "search", query=["x"] * 11).state == ActionStatusCode.ARGS_ERROR
    assert call(browser, "search", query=[]).state == ActionStatusCode.ARGS_ERROR


def test_results_belong_to_their_session(browser: WebBrowser) -> None:
    call(browser, "search", query="x", session_id=1)
    assert "there is no result 0: search first" in call(browser, "select", select_ids=[0], session_id=2).text
    assert "give numbers from 0 to 2" in call(browser, "select", select_ids=[5], session_id=1).text


@pytest.mark.parametrize("ids", [[], [0, 1, 2, 3, 4], ["0"], "0"])
def test_too_many_or_wrong_numbers_are_refused(browser: WebBrowser, ids: Any) -> None:
    assert call(browser, "select", select_ids=ids).state == ActionStatusCode.ARGS_ERROR


def test_a_long_page_is_read_page_by_page(browser: WebBrowser, site: Site) -> None:
    site.routes["/long"] = Answer("".join(f"<p>paragraph {number}</p>" for number in range(2000)).encode())
    first = call(browser, "open_url", url=f"{site.url}/long").text
    assert first.startswith("(page 1 of 4; ask for page 2 to read on)\n\nparagraph 0\n")
    last = call(browser, "open_url", url=f"{site.url}/long", page=4).text
    assert last.endswith("paragraph 1999")
    assert len(site.asked) == 1
    assert "has no part 9" in call(browser, "open_url", url=f"{site.url}/long", page=9).text
    assert call(browser, "open_url", url=f"{site.url}/long", page=0).state == ActionStatusCode.ARGS_ERROR


def test_what_the_web_is_to_blame_for_has_its_own_state(browser: WebBrowser, site: Site) -> None:
    site.routes |= {"/image": Answer(b"\x89PNG", "image/png"), "/inward": redirect("file:///etc/passwd")}
    for path, said in [
        ("missing", "answered 404 Not Found"),
        ("inward", "is no web address"),
        ("image", "is no text (image/png)"),
    ]:
        returned = call(browser, "open_url", url=f"{site.url}/{path}")
        assert (returned.state, said in returned.text) == (ActionStatusCode.HTTP_ERROR, True)
    site.routes["/bing"] = recorded("bing_401.json", 401)
    returned = call(browser, "search", query="x")
    assert returned.state == ActionStatusCode.HTTP_ERROR
    assert "Bing does not take the key (401: 401 Access denied due to invalid" in returned.text
    site.routes["/bing"] = found_at(site)
    returned = call(browser, "search", query="nothing")
    assert (returned.state, returned.text) == (ActionStatusCode.API_ERROR, "nothing was found: try other words")
    site.routes["/bing"] = found_at(site, "/gone", "/missing")
    call(browser, "search", query="gone")
    returned = call(browser, "select", select_ids=[0, 1])
    assert (returned.state, returned.text.count("answered 404")) == (ActionStatusCode.HTTP_ERROR, 2)


def test_pages_of_private_networks_are_not_read_though_the_engine_is_in_one(site: Site) -> None:
    browser = WebBrowser("BingSearch", api_key=KEY, endpoint=f"{site.url}/bing")
    assert "/tea" in call(browser, "search", query="tea pots").text
    returned = call(browser, "select", select_ids=[0])
    assert returned.state == ActionStatusCode.HTTP_ERROR
    assert "is an address of a private network" in returned.text
    assert "is an address of a private network" in call(browser, "open_url", url=f"{site.url}/tea").text
    assert [asked.path for asked in site.asked] == ["/bing"]
    browser.close()
    some = WebBrowser(allow_private=["127.0.0.1"])
    assert "Teapot" in call(some, "open_url", url=f"{site.url}/tea").text
    some.close()


def test_keys_are_shown_nowhere(browser: WebBrowser, site: Site) -> None:
    site.routes["/bing"] = Answer(f"no such key: {KEY}".encode(), "text/plain", 401)
    returned = call(browser, "search", query="x")
    for shown in (repr(browser), repr(browser.searcher), repr(returned), json.dumps(browser.description)):
        assert KEY not in shown
    assert KEY not in json.dumps(browser.state_dict())


def test_both_colours_are_described_alike() -> None:
    blocking, other = WebBrowser(), AsyncWebBrowser()
    assert blocking.description["api_list"] == other.description["api_list"]
    assert {name: api.is_async for name, api in other.apis().items()} == dict.fromkeys(blocking.apis(), True)
    assert not any(api.is_async for api in blocking.apis().values())
    search = blocking.description["api_list"][0]
    assert [parameter["name"] for parameter in search["parameters"]] == ["query"]


def test_bad_options_are_refused() -> None:
    for options in ({"timeout": 0}, {"timeout": None}, {"searcher_type": "Nope"}, {"api_key": "k"}):
        with pytest.raises(InvalidArgument):
            WebBrowser(**options)  # type: ignore[arg-type]
    made = WebBrowser({"type": "lagentlike.actions.BingSearch", "api_key": "k", "topk": 3})
    assert isinstance(made.searcher, BingSearch)


@asynccontextmanager
async def slow(site: Site) -> AsyncIterator[AsyncWebBrowser]:
    """A browser for a page that does not come."""
    released = threading.Event()

    def wait(asked: Asked) -> Answer:
        released.wait(20)
        return Answer(b"late")

    site.routes["/slow"] = wait
    browser = AsyncWebBrowser(timeout=15, allow_private=True)
    try:
        yield browser
    finally:
        await browser.aclose()
        released.set()


async def test_a_stop_ends_a_slow_page(site: Site) -> None:
    message = AgentMessage(content="", tool_calls=[ToolCall("AsyncWebBrowser.open_url", {"url": f"{site.url}/slow"})])
    started, stop = time.monotonic(), Stop()
    async with slow(site) as browser:
        running = asyncio.create_task(AsyncActionExecutor([browser])(message, stop=stop))
        await asyncio.sleep(0.2)
        assert not running.done()
        stop.set("the user left")
        results = (await running).tool_results
    assert results is not None
    assert "the user left" in results[0].text
    assert time.monotonic() - started < 10


async def test_a_time_limit_ends_a_slow_page_and_the_loop_goes_on(site: Site) -> None:
    message = AgentMessage(content="", tool_calls=[ToolCall("AsyncWebBrowser.open_url", {"url": f"{site.url}/slow"})])
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async with slow(site) as browser:
        browser.timeout = 0.3
        ticking = asyncio.create_task(tick())
        results = (await AsyncActionExecutor([browser])(message)).tool_results
        ticking.cancel()
    assert results is not None
    assert "took longer than its 0.3 seconds: it was stopped" in results[0].text
    assert ticks > 3


def test_an_agent_searches_and_reads(site: Site) -> None:
    browser = WebBrowser("BingSearch", allow_private=True, api_key=KEY, endpoint=f"{site.url}/bing")
    llm = ScriptedLLM(
        [
            ToolCall("WebBrowser.search", {"query": "teapots"}),
            ToolCall("WebBrowser.select", {"select_ids": [0]}),
            "Teapots are vessels.",
        ]
    )
    agent = ReAct(llm, actions=[browser])
    assert agent("What is a teapot?").content == "Teapots are vessels."
    assert "a vessel used for steeping" in str(llm.requests[-1].messages)
    fork = agent.state_dict(0)
    assert any("results" in key for key in fork)
    browser.close()
