"""Search and pages, against a server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from lagentlike.actions import ActionExecutor, AsyncActionExecutor, BingSearch, DuckDuckGoSearch, WebBrowser
from lagentlike.actions.html import page_text, pieces
from lagentlike.actions.web_browser import AsyncWebBrowser
from lagentlike.errors import InvalidArgument
from lagentlike.schema import ActionReturn, ActionStatusCode, AgentMessage

DUCK = """<html><body>
<div class="result results_links"><h2 class="result__title">
<a rel="nofollow" class="result__a" href="//duckduckgo.com/l/?uddg=https%3A%2F%2Fwww.example.org%2Fa%3Fb%3D1&amp;rut=x">The <b>first</b></a>
</h2><a class="result__snippet" href="#">A <b>summary</b> of it.</a></div>
<div class="result"><a class="result__a" href="//duckduckgo.com/y.js?ad_domain=shop.example">Buy</a>
<a class="result__snippet">Cheap.</a></div>
<div class="result"><a class="result__a" href="https://www.youtube.com/watch">Video</a>
<a class="result__snippet">Seen.</a></div>
<div class="result"><a class="result__a" href="https://www.example.org/second">Second</a>
<a class="result__snippet">Other.</a></div>
</body></html>"""  # noqa: E501

PAGE = """<!doctype html><html><head><title>The  title</title><style>p {color: red}</style>
<script>alert("no")</script></head><body><h1>Head</h1><p>One <b>two</b>&amp;three</p><ul><li>a</li><li>b</li></ul>
<noscript>hidden</noscript></body></html>"""


class Handler(BaseHTTPRequestHandler):
    """Answers as engines and sites do."""

    asked: list[tuple[str, dict[str, str]]] = []

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.asked.append((self.path, dict(self.headers)))
        answer = getattr(self, "path_" + parts.path.strip("/").replace("/", "_"), None)
        if answer is None:
            self.send("text/plain", b"not here", 404)
        else:
            answer(parse_qs(parts.query))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append((body, dict(self.headers)))
        self.send("text/html; charset=utf-8", DUCK.encode())

    def send(self, kind: str, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def path_bing(self, query: dict[str, list[str]]) -> None:
        if self.headers.get("Ocp-Apim-Subscription-Key") != "secret-key":
            self.send("application/json", b"{}", 401)
            return
        base = f"http://127.0.0.1:{self.server.server_address[1]}"  # type: ignore[index, str-bytes-safe]
        pages = [
            {"url": f"{base}/page", "name": query["q"][0], "snippet": "one"},
            {"url": f"{base}/missing", "name": "two", "snippet": "two"},
        ]
        self.send("application/json", json.dumps({"webPages": {"value": pages}}).encode())

    def path_nothing(self, query: Any) -> None:
        self.send("application/json", b'{"webPages": {"value": []}}')

    def path_broken(self, query: Any) -> None:
        self.send("application/json", b"<html>")

    def path_page(self, query: Any) -> None:
        self.send("text/html; charset=utf-8", PAGE.encode())

    def path_latin(self, query: Any) -> None:
        self.send("text/plain; charset=iso-8859-1", "é".encode("latin-1"))

    def path_image(self, query: Any) -> None:
        self.send("image/png", b"\x89PNG")

    def path_bomb(self, query: Any) -> None:
        self.send("text/plain", gzip.compress(b"x" * 50_000_000), Content_Encoding="gzip")

    def path_moved(self, query: Any) -> None:
        self.send("text/plain", b"", 302, Location="/page")

    def path_inward(self, query: Any) -> None:
        self.send("text/plain", b"", 302, Location="file:///etc/passwd")

    def path_round(self, query: Any) -> None:
        self.send("text/plain", b"", 302, Location="/round")

    def path_slow(self, query: Any) -> None:
        time.sleep(2)
        with contextlib.suppress(OSError):
            self.send("text/plain", b"late")


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def browser(site: str) -> Iterator[WebBrowser]:
    browser = WebBrowser("BingSearch", timeout=5, allow_private=True, api_key="secret-key", endpoint=f"{site}/bing")
    yield browser
    browser.close()


def call(browser: WebBrowser, api: str, session_id: Any = 0, **arguments: Any) -> ActionReturn:
    message = AgentMessage(content={"name": f"{browser.name}.{api}", "parameters": arguments})
    if isinstance(browser, AsyncWebBrowser):
        return asyncio.run(AsyncActionExecutor([browser])(message, session_id=session_id)).content  # type: ignore[no-any-return]
    return ActionExecutor([browser])(message, session_id=session_id).content  # type: ignore[no-any-return]


def test_it_searches_and_reads_what_it_found(browser: WebBrowser) -> None:
    found = json.loads(call(browser, "search", query="teapots").text)
    assert found["0"]["title"] == "teapots"
    assert set(found["0"]) == {"url", "title", "summ"}
    read = json.loads(call(browser, "select", select_ids=[0, 1]).text)
    assert read["0"]["content"] == "The title\n\nHead\nOne two&three\na\nb"
    assert "answered 404" in read["1"]["content"]


def test_several_questions_at_once_give_each_page_once(browser: WebBrowser) -> None:
    assert len(json.loads(call(browser, "search", query=["a", "b"]).text)) == 2


def test_results_belong_to_their_session(browser: WebBrowser) -> None:
    call(browser, "search", query="x", session_id=1)
    assert "there is no result 0: search first" in call(browser, "select", select_ids=[0], session_id=2).text
    assert "give numbers from 0 to 1" in call(browser, "select", select_ids=[5], session_id=1).text


@pytest.mark.parametrize("ids", [[], [0, 1, 2, 3, 4], ["0"], "0"])
def test_too_many_or_wrong_numbers_are_refused(browser: WebBrowser, ids: Any) -> None:
    assert call(browser, "select", select_ids=ids).state == ActionStatusCode.ARGS_ERROR


def test_the_async_browser_does_the_same(site: str) -> None:
    browser = AsyncWebBrowser("BingSearch", allow_private=True, api_key="secret-key", endpoint=f"{site}/bing")
    assert "teapots" in call(browser, "search", query="teapots").text
    assert "Head" in call(browser, "select", select_ids=[0]).text
    assert "Head" in call(browser, "open_url", url=f"{site}/moved").text
    asyncio.run(browser.aclose())


def test_duckduckgo_is_read_from_its_page(site: str) -> None:
    browser = WebBrowser(DuckDuckGoSearch(endpoint=f"{site}/html"), allow_private=True)
    found = json.loads(call(browser, "search", query="tea pots").text)
    assert found == {
        "0": {"url": "https://www.example.org/a?b=1", "title": "The first", "summ": "A summary of it."},
        "1": {"url": "https://www.example.org/second", "title": "Second", "summ": "Other."},
    }
    assert "q=tea+pots" in [path for path, _ in Handler.asked]
    browser.close()


def test_http_errors_are_results_with_their_state(site: str) -> None:
    for endpoint, key, said in [
        ("bing", "wrong", "answered 401 Unauthorized"),
        ("nowhere", "k", "answered 404"),
        ("broken", "k", "no JSON"),
    ]:
        browser = WebBrowser("BingSearch", allow_private=True, api_key=key, endpoint=f"{site}/{endpoint}")
        returned = call(browser, "search", query="x")
        assert returned.state == ActionStatusCode.HTTP_ERROR
        assert said in returned.text
        browser.close()
    browser = WebBrowser("BingSearch", allow_private=True, api_key="k", endpoint=f"{site}/nothing")
    assert "nothing was found" in call(browser, "search", query="x").text
    browser.close()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing", "answered 404"),
        ("inward", "is no web address"),
        ("round", "redirects more than 5 times"),
        ("image", "is no text (image/png)"),
        ("slow", "did not answer within 0.5 seconds"),
    ],
)
def test_pages_that_cannot_be_read_are_explained(site: str, path: str, said: str) -> None:
    browser = WebBrowser(allow_private=True, timeout=0.5)
    returned = call(browser, "open_url", url=f"{site}/{path}")
    assert returned.state == ActionStatusCode.HTTP_ERROR
    assert said in returned.text
    browser.close()


def test_pages_are_decoded_and_bounded(browser: WebBrowser, site: str) -> None:
    assert call(browser, "open_url", url=f"{site}/latin").text == "é"
    assert len(call(browser, "open_url", url=f"{site}/bomb").text) <= 8192
    assert "cannot be reached" in call(browser, "open_url", url="http://127.0.0.1:1/").text


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://10.0.0.1/", "http://192.168.1.1/",
        "http://172.16.0.1/", "http://169.254.169.254/latest/meta-data/", "http://0.0.0.0/", "http://2130706433/",
        "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://[::ffff:127.0.0.1]/", "http://[fe80::1]/",
        "http://[fd00::1]/", "http://[::]/", "http://224.0.0.1/", "http://100.64.0.1/", "http://user@127.0.0.1/",
        "file:///etc/passwd", "ftp://example.org/", "gopher://127.0.0.1/", "data:text/html,x", "//127.0.0.1/", "http://",
        "javascript:alert(1)", "", "http://[::1", "http://[2002:7f00:1::]/",
    ],
)  # fmt: skip
def test_private_addresses_are_refused(url: str) -> None:
    browser = WebBrowser(timeout=5)
    returned = call(browser, "open_url", url=url)
    assert returned.state == ActionStatusCode.HTTP_ERROR
    assert "private network" in returned.text or "is no web address" in returned.text
    browser.close()


def test_a_redirect_to_a_private_address_is_refused(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = WebBrowser(timeout=5)
    checked: list[str] = []
    check = browser._client._check

    def note(url: str) -> None:
        checked.append(url)
        if len(checked) > 1:
            check(url)

    monkeypatch.setattr(browser._client, "_check", note)
    assert "private network" in call(browser, "open_url", url=f"{site}/moved").text
    assert checked[1].endswith("/page")
    browser.close()


def test_keys_are_shown_nowhere(site: str) -> None:
    browser = WebBrowser("BingSearch", api_key="sk-very-secret", endpoint=f"{site}/bing", allow_private=True)
    returned = call(browser, "search", query="x")
    for shown in (repr(browser), repr(browser.searcher), repr(returned), json.dumps(browser.description)):
        assert "sk-very-secret" not in shown
    browser.close()


def test_bad_options_are_refused() -> None:
    for make in (
        lambda: WebBrowser("Nope"),
        lambda: WebBrowser("BingSearch", api_key=""),
        lambda: WebBrowser("DuckDuckGoSearch", api_key="k"),
        lambda: WebBrowser("DuckDuckGoSearch", topk=0),
        lambda: WebBrowser(timeout=0),
        lambda: BingSearch("k", wrong=1),
    ):
        with pytest.raises(InvalidArgument):
            make()


def test_engines_may_be_configs() -> None:
    browser = WebBrowser({"type": "lagentlike.actions.BingSearch", "api_key": "k", "topk": 3})
    assert isinstance(browser.searcher, BingSearch)
    assert browser.searcher.topk == 3


def test_text_of_strange_pages_is_found_in_time() -> None:
    assert page_text("<p>a<p>b<script>c</p>") == "a\nb"
    started = time.process_time()
    for strange in (
        "<",
        "<a ",
        "<!--",
        "&",
        "<p>",
        "</",
        "<![CDATA[",
        "<a b='",
        "<a b='x' ",
        "<script>",
        "</script",
        "<a b",
    ):
        page_text(strange * (1_000_000 // len(strange)))
    page_text("<a " + "b='" * 300_000 + ">")
    assert time.process_time() - started < 30


def test_attributes_are_read_in_all_their_forms() -> None:
    (piece,) = pieces("<A HREF='x&amp;y' b=\"2\" c=3 d>")
    assert piece == ("start", "a", {"href": "x&y", "b": "2", "c": "3"})
    assert [piece.value for piece in pieces("a<!-- <b> -->c<script>d</script>e<svg")] == ["a", "c", "e<svg"]
