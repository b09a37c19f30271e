"""Each engine asks as its service wants, and understands what it answers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lagentlike.actions import engines
from lagentlike.actions.engines import engine_of
from lagentlike.actions.engines.base import Found, plain, SearchEngine
from lagentlike.actions.engines.tencent import tc3_headers
from lagentlike.actions.web_fetch import WebClient
from lagentlike.errors import (
    BadAnswer,
    FetchError,
    InvalidArgument,
    ServiceKeyRefused,
    ServiceLimited,
    ServiceQuotaUsed,
)

from ..web_site import Answer, Asked, recorded, Site

KEY = "hush-hush"
KEYS = "BING_API_KEY BRAVE_API_KEY SERPER_API_KEY TENCENT_SECRET_ID TENCENT_SECRET_KEY SEARXNG_URL".split()


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def search(engine: SearchEngine, *queries: str) -> Any:
    """What one query finds, or several side by side."""

    async def ask() -> Any:
        client = WebClient(10, allow_private=True, max_redirects=0)
        try:
            return await (engine.search(client, *queries) if len(queries) == 1 else engine.search_all(client, queries))
        finally:
            await client.close()

    return asyncio.run(ask())


def test_brave(site: Site) -> None:
    site.routes["/res/v1/web/search"] = recorded("brave.json")
    endpoint = f"{site.url}/res/v1/web/search"
    engine = engines.BraveSearch(KEY, region="DE", language="en", extra_snippets=True, topk=30, endpoint=endpoint)
    assert search(engine, "tea  pots ") == [
        {
            "url": "https://www.example.org/pots",
            "title": "Tea & pots",
            "summ": "All about tea pots. They are round. They have a lid.",
        },
        {"url": "https://example.net/", "title": "Without a summary", "summ": ""},
    ]
    (asked,) = site.asked
    assert (asked.method, asked.headers["X-Subscription-Token"]) == ("GET", KEY)
    assert asked.query == {
        "q": "tea pots", "count": "20", "country": "DE", "search_lang": "en", "extra_snippets": "true",
        "text_decorations": "false",
    }  # fmt: skip


def test_braves_news(site: Site) -> None:
    assert engines.BraveSearch(KEY, search_type="news").endpoint == "https://api.search.brave.com/res/v1/news/search"
    site.routes["/"] = recorded("brave_news.json")
    found = search(engines.BraveSearch(KEY, search_type="news", endpoint=site.url), "tea")
    assert found == [{"url": "https://news.example.org/tea", "title": "Tea is dear", "summ": "It went up."}]


def test_serper(site: Site) -> None:
    site.routes["/search"] = recorded("serper.json")
    engine = engine_of("GoogleSearch", {"api_key": KEY, "region": "de", "language": "en", "endpoint": site.url})
    assert search(engine, "tea pots") == [
        {"url": "https://en.example.org/wiki/Teapot", "title": "Teapot", "summ": "A vessel for tea."},
        {
            "url": "https://www.example.org/pots",
            "title": "Pots for tea",
            "summ": "Feb 1, 2025 · Round ones. · Rating: 4.5 · Votes: 12",
        },
    ]
    (asked,) = site.asked
    assert (asked.method, asked.headers["X-API-KEY"]) == ("POST", KEY)
    assert asked.json() == {"q": "tea pots", "num": 20, "gl": "de", "hl": "en"}


def test_serpers_images(site: Site) -> None:
    site.routes["/images"] = recorded("serper_images.json")
    found = search(engines.SerperSearch(KEY, "images", endpoint=f"{site.url}/"), "red teapot")
    assert found == [{"url": "https://img.example.org/red.png", "title": "A red teapot", "summ": ""}]


def test_searxng(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.routes["/search"] = recorded("searxng.json")
    monkeypatch.setenv("SEARXNG_URL", site.url + "/")
    engine = engines.SearxngSearch(language="en", api_key=KEY, auth_name="X-Auth")
    assert search(engine, "tea pots") == [
        {"url": "https://www.example.org/pots", "title": "Tea pots", "summ": "All about tea pots."},
        {"url": "https://example.net/", "title": "Another", "summ": ""},
    ]
    assert site.asked[0].query == {"q": "tea pots", "format": "json", "language": "en", "categories": "general"}
    assert site.asked[0].headers["X-Auth"] == KEY
    assert engines.SearxngSearch("https://search.example.org/searx/search").endpoint.endswith("org/searx/search")


def test_searxng_says_what_keeps_it_silent(site: Site) -> None:
    site.routes |= {"/a": recorded("searxng_silent.json"), "/b": Answer(b"<h1>Forbidden</h1>", status=403)}
    with pytest.raises(FetchError, match=r"has answered \(google: Suspended: CAPTCHA, brave: timeout\)"):
        search(engines.SearxngSearch(f"{site.url}/a"), "x")
    with pytest.raises(FetchError, match=r"does not answer with JSON: name json in search\.formats of its settings"):
        search(engines.SearxngSearch(f"{site.url}/b"), "x")


def test_tencent(site: Site) -> None:
    site.routes["/"] = recorded("tencent.json")
    engine = engines.TencentSearch("AKID", KEY, "token", insite="example.cn", endpoint=site.url)
    assert search(engine, "茶壶") == [
        {"url": "https://baike.example.cn/teapot", "title": "茶壶_百科", "summ": "茶壶是一种泡茶的器皿。"}
    ]
    (asked,) = site.asked
    sent = asked.headers
    assert asked.json() == {"Query": "茶壶", "Site": "example.cn"}
    assert (sent["X-TC-Action"], sent["X-TC-Version"], sent["X-TC-Token"]) == ("SearchPro", "2025-05-08", "token")
    assert sent["Host"] == "wsa.tencentcloudapi.com"
    assert abs(int(sent["X-TC-Timestamp"]) - time.time()) < 60
    signed = tc3_headers(
        "AKID", KEY, "wsa", sent["Host"], "SearchPro", "2025-05-08", asked.body, int(sent["X-TC-Timestamp"])
    )
    assert sent["Authorization"] == signed["Authorization"]


def test_tencents_older_search(site: Site) -> None:
    site.routes["/"] = recorded("tencent_common.json")
    options = {"action": "SearchCommon", "version": "2020-12-29", "service": "tms", "tsn": 3, "insite": "example.cn"}
    engine = engines.TencentSearch("AKID", KEY, endpoint=site.url, **options)  # type: ignore[arg-type]  # they fit
    assert [page["summ"] for page in search(engine, "x")] == ["泡茶的器皿"]
    assert site.asked[0].json() == {"Query": "x", "Tsn": 3, "Insite": "example.cn"}
    assert site.asked[0].headers["Host"] == "tms.tencentcloudapi.com"


def test_tencents_signature_is_that_of_its_documentation() -> None:
    body = rb'{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}'
    headers = tc3_headers(
        "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE", "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE", "cvm", "cvm.tencentcloudapi.com",
        "DescribeInstances", "2017-03-12", body, 1551113065,
    )  # fmt: skip
    assert headers["Authorization"] == (
        "TC3-HMAC-SHA256 Credential=AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE/2019-02-25/cvm/tc3_request, "
        "SignedHeaders=content-type;host, "
        "Signature=72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168"
    )


def test_bing(site: Site) -> None:
    site.routes["/"] = recorded("bing.json")
    engine = engines.BingSearch(KEY, topk=3, endpoint=site.url)
    assert search(engine, "tea pots") == [
        {"url": "https://www.example.org/pots", "title": "Tea pots", "summ": "All about tea pots."}
    ]
    assert site.asked[0].headers["Ocp-Apim-Subscription-Key"] == KEY
    assert site.asked[0].query == {"q": "tea pots", "mkt": "en-US", "count": "6"}


def test_duckduckgo(site: Site) -> None:
    site.routes |= {"/": recorded("duckduckgo.html"), "/challenge": recorded("duckduckgo_challenge.html")}
    assert search(engines.DuckDuckGoSearch(endpoint=site.url), "tea pots") == [
        {"url": "https://www.example.org/a?b=1", "title": "The first", "summ": "A summary of it."},
        {"url": "https://www.example.org/second", "title": "Second", "summ": "Other."},
    ]
    assert site.asked[0].body == b"q=tea+pots"
    with pytest.raises(ServiceLimited, match="proof of being human"):
        search(engines.DuckDuckGoSearch(endpoint=f"{site.url}/challenge"), "x")


REFUSALS: list[tuple[str, Answer, type[FetchError], str]] = [
    ("BraveSearch", recorded("brave_422.json", 422), ServiceKeyRefused, r"Brave Search does not take the key \(422: "),
    ("BraveSearch", recorded("brave_429_quota.json", 429), ServiceQuotaUsed, "the quota of Brave Search is used up"),
    (
        "BraveSearch",
        recorded("brave_429.json", 429, {"X-RateLimit-Reset": "30, 1419704"}),
        ServiceLimited,
        "ask again in 30 seconds",
    ),
    (
        "BraveSearch",
        Answer(b"", status=429, headers={"Retry-After": "7.5"}),
        ServiceLimited,
        "ask again in 7.5 seconds",
    ),
    ("BraveSearch", Answer(b"slow down", "text/plain", 429), ServiceLimited, r"\(429: slow down\): wait a little"),
    ("BraveSearch", Answer(b"<html>busy</html>", status=503), FetchError, r"answered with an error \(503\)"),
    ("BraveSearch", Answer(b"<html>"), BadAnswer, "something that is no JSON"),
    ("BraveSearch", Answer(b"[" * 100_000), BadAnswer, "something that is no JSON"),
    ("BraveSearch", Answer(b"[]"), BadAnswer, "Brave Search answered in an unknown form"),
    ("SerperSearch", recorded("serper_403.json", 403), ServiceKeyRefused, "set SERPER_API_KEY to one that it takes"),
    ("SerperSearch", recorded("serper_400_credits.json", 400), ServiceQuotaUsed, "Not enough credits"),
    ("SerperSearch", Answer(b"1"), BadAnswer, "Serper answered in an unknown form"),
    ("BingSearch", recorded("bing_401.json", 401), ServiceKeyRefused, "Access denied"),
    ("TencentSearch", recorded("tencent_signature.json"), ServiceKeyRefused, r"AuthFailure\.SignatureFailure"),
    ("TencentSearch", recorded("tencent_limit.json"), ServiceLimited, "RequestLimitExceeded"),
    ("TencentSearch", Answer(b'{"Response": {"Pages": 3}}'), BadAnswer, "no Pages"),
    ("SearxngSearch", Answer(b'{"results": null}'), BadAnswer, "no results"),
]


@pytest.mark.parametrize(("name", "answer", "error", "said"), REFUSALS)
def test_refusals_are_told_apart(site: Site, name: str, answer: Answer, error: type[FetchError], said: str) -> None:
    site.routes |= dict.fromkeys(("/search", "/"), answer)
    keys = {"TencentSearch": {"secret_id": "AKID", "secret_key": KEY}, "SearxngSearch": {}}
    with pytest.raises(FetchError, match=said) as refused:
        search(engine_of(name, {"endpoint": site.url, **keys.get(name, {"api_key": KEY})}), "x")
    assert type(refused.value) is error
    if answer.status >= 400:
        assert refused.value.status == answer.status


def test_a_service_that_wants_a_moment_is_asked_again(site: Site) -> None:
    busy = recorded("brave_429.json", 429, {"X-RateLimit-Reset": "0, 1419704"})
    answers = [busy, busy, recorded("brave.json")]
    site.routes["/"] = lambda asked: answers.pop(0)
    assert len(search(engines.BraveSearch(KEY, endpoint=site.url), "x")) == 2
    site.routes["/"] = busy
    with pytest.raises(ServiceLimited, match="ask again in 0 seconds"):
        search(engines.BraveSearch(KEY, endpoint=site.url), "x")
    assert len(site.asked) == 3 + 4


def test_a_date_says_when_to_ask_again(site: Site) -> None:
    site.routes["/"] = Answer(b"", status=429, headers={"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"})
    with pytest.raises(ServiceLimited) as limited:
        search(engines.BraveSearch(KEY, endpoint=site.url), "x")
    assert limited.value.retry_after is not None
    assert limited.value.retry_after > 1e6


def test_a_key_that_a_service_repeats_is_not_shown(site: Site) -> None:
    site.routes["/"] = Answer(json.dumps({"error": f"Invalid API key {KEY}"}).encode(), status=401)
    engine = engines.BraveSearch(KEY, endpoint=site.url)
    with pytest.raises(ServiceKeyRefused) as refused:
        search(engine, "x")
    assert KEY not in f"{refused.value!r}{engine!r}"
    assert "(the key)" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "argument", "variable"),
    [
        ("BraveSearch", "api_key", "BRAVE_API_KEY"),
        ("SerperSearch", "api_key", "SERPER_API_KEY"),
        ("BingSearch", "api_key", "BING_API_KEY"),
        ("TencentSearch", "secret_id", "TENCENT_SECRET_ID"),
        ("SearxngSearch", "endpoint", "SEARXNG_URL"),
    ],
)
def test_a_missing_key_names_its_variable(
    name: str, argument: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgument, match=f"^{argument}.*set {variable}"):
        engine_of(name)
    monkeypatch.setenv(variable, "https://of-the-environment.example")
    if name == "TencentSearch":
        monkeypatch.setenv("TENCENT_SECRET_KEY", KEY)
    engine_of(name)


def test_results_are_kept_for_a_while_and_equal_questions_asked_once(site: Site) -> None:
    arrived = threading.Event()

    def slow(asked: Asked) -> Answer:
        arrived.wait(0.3)
        return recorded("bing.json")

    site.routes["/"] = slow
    engine = engines.BingSearch(KEY, endpoint=site.url)
    first, second, third = search(engine, "tea", " tea", "other")
    assert first == second == third
    first[0]["title"] = "changed"
    assert search(engine, "tea")[0]["title"] == "Tea pots"
    assert sorted(asked.query["q"] for asked in site.asked) == ["other", "tea"]
    fresh = engines.BingSearch(KEY, endpoint=site.url, kept_seconds=0)
    search(fresh, "tea")
    search(fresh, "tea")
    assert len(site.asked) == 4


def test_only_a_few_questions_are_asked_at_once(site: Site) -> None:
    running, most, guard = 0, 0, threading.Lock()

    def counted(asked: Asked) -> Answer:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with guard:
            running -= 1
        return recorded("bing.json") if asked.query["q"] != "7" else Answer(b"", status=500)

    site.routes["/"] = counted
    found = search(engines.BingSearch(KEY, endpoint=site.url), *map(str, range(12)))
    assert [isinstance(one, FetchError) for one in found] == [number == 7 for number in range(12)]
    assert 1 < most <= 4


def test_an_engine_of_ones_own_is_two_lines() -> None:
    class Shelf(SearchEngine):
        """Finds books."""

        async def _find(self, client: WebClient, query: str) -> list[Found]:
            names = [query, "a.bad.example", "[", "bad.example", "good-bad.example", query]
            return [{"url": f"https://{name}/", "title": "<b>T</b>", "summ": "a &lt; b"} for name in names]

    assert search(Shelf(black_list=["bad.example"]), "x.example") == [
        {"url": "https://x.example/", "title": "T", "summ": "a < b"},
        {"url": "https://good-bad.example/", "title": "T", "summ": "a < b"},
    ]
    with pytest.raises(FetchError, match="nothing to search for"):
        search(Shelf(), "  ")


def test_bad_options_are_refused() -> None:
    for name, options in [
        ("Nope", {}),
        ("SearchEngine", {}),
        ("DuckDuckGoSearch", {"api_key": KEY}),
        ("DuckDuckGoSearch", {"topk": 0}),
        ("DuckDuckGoSearch", {"topk": True}),
        ("DuckDuckGoSearch", {"black_list": "youtube.com"}),
        ("BingSearch", {"api_key": ""}),
        ("SerperSearch", {"api_key": KEY, "search_type": "smells"}),
        ("TencentSearch", {"secret_id": "a", "secret_key": "b", "tsn": 1}),
        (engines.DuckDuckGoSearch(), {"topk": 3}),
        ({"type": "fractions.Fraction"}, {}),
    ]:
        with pytest.raises(InvalidArgument):
            engine_of(name, options)
    made = engine_of({"type": "lagentlike.actions.BingSearch", "api_key": KEY, "topk": 3})
    assert (type(made), made.topk) == (engines.BingSearch, 3)


def test_marks_of_html_are_taken_out_and_nothing_else() -> None:
    assert plain("a <strong>b</strong>\n<b>c</b> &amp; 1 < 2 <T> x") == "a b c & 1 < 2 <T> x"
