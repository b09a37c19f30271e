"""Search and pages as flat tools, against a server on loopback."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lagentlike.actions import ActionExecutor, BingSearch, DuckDuckGoSearch
from lagentlike.actions.toolsets import tools_of
from lagentlike.actions.web_tools import configured_engine, ENGINES, web_tools
from lagentlike.concurrency import run_in_background
from lagentlike.errors import InvalidArgument
from lagentlike.schema import AgentMessage, ToolCall, ToolResult

FOUND = {"webPages": {"value": [{"url": f"https://www.example.org/{n}", "name": f"Page {n}"} for n in range(9)]}}


class Handler(BaseHTTPRequestHandler):
    """An engine and two pages."""

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        kind, body = {
            "/search": ("application/json", json.dumps(FOUND).encode()),
            "/searxng": (
                "application/json",
                json.dumps({"results": [{"url": "https://a.example/", "title": "Page 0"}]}).encode(),
            ),
            "/page": ("text/html", b"<html><body><h1>Head</h1><script>no()</script><p>Body</p></body></html>"),
        }.get(self.path.partition("?")[0], ("image/png", b"\x89PNG"))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def executor(address: str) -> Iterator[ActionExecutor]:
    engine = BingSearch("hush", endpoint=f"{address}/search")
    executor = ActionExecutor(web_tools(engine, allow_private=True))
    yield executor
    for tool in executor.values():
        run_in_background(tool.aclose())  # type: ignore[attr-defined]


def call(executor: ActionExecutor, name: str, **arguments: Any) -> ToolResult:
    results = executor(AgentMessage(content="", tool_calls=[ToolCall(name, arguments)])).tool_results
    assert results is not None
    return results[0]


def test_searches(executor: ActionExecutor) -> None:
    found = json.loads(call(executor, "web_search", query="pages", limit=2).text)
    assert found == [
        {"title": "Page 0", "url": "https://www.example.org/0", "summary": ""},
        {"title": "Page 1", "url": "https://www.example.org/1", "summary": ""},
    ]
    assert "less than or equal to 20" in call(executor, "web_search", query="pages", limit=21).text


def test_reads_pages_and_says_what_is_none(executor: ActionExecutor, address: str) -> None:
    pages = json.loads(call(executor, "web_extract", urls=[f"{address}/page", f"{address}/image", "file:///a"]).text)
    assert "Head" in pages[0]["content"]
    assert "no()" not in pages[0]["content"]
    assert "is no text (image/png)" in pages[1]["error"]
    assert "no web address" in pages[2]["error"]


def test_addresses_of_private_networks_are_refused(address: str) -> None:
    executor = ActionExecutor(web_tools())
    assert "private network" in call(executor, "web_extract", urls=[f"{address}/page"]).text


def test_search_is_left_out_where_nothing_is_configured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ENGINES:
        monkeypatch.delenv(name, raising=False)
    with caplog.at_level(logging.INFO):
        assert [tool.name for tool in tools_of(["web"])] == ["web_extract"]
    assert "web_search is left out: searching needs BING_API_KEY, BRAVE_API_KEY" in caplog.text
    monkeypatch.setenv("BING_API_KEY", "hush")
    assert [tool.name for tool in tools_of(["web"])] == ["web_search", "web_extract"]


def test_a_server_of_ones_own_is_asked_wherever_it_is(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENGINES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEARXNG_URL", f"{address}/searxng")
    executor = ActionExecutor(tools_of(["web"]))
    assert json.loads(call(executor, "web_search", query="tea").text)[0]["title"] == "Page 0"
    assert "private network" in call(executor, "web_extract", urls=[f"{address}/page"]).text
    for tool in executor.values():
        tool.close()  # type: ignore[attr-defined]


def test_the_environment_names_an_engine() -> None:
    assert configured_engine({}) is None
    endpoint = {"LAGENTLIKE_SEARCH_ENDPOINT": "https://search.example.org/"}
    assert isinstance(configured_engine(endpoint), DuckDuckGoSearch)
    bing = configured_engine({**endpoint, "BING_API_KEY": "hush"})
    assert isinstance(bing, BingSearch)
    assert bing.endpoint == "https://search.example.org/"
    for variable, name in ENGINES.items():
        engine = configured_engine({variable: "https://search.example.org/", "TENCENT_SECRET_ID": "AKID"}, topk=3)
        assert (type(engine).__name__, getattr(engine, "topk", 0)) == (name, 3)
    with pytest.raises(InvalidArgument, match="set TENCENT_SECRET_ID"):
        configured_engine({"TENCENT_SECRET_KEY": "hush"})
