"""Asking a model about an image: a server on loopback sees what is sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import ActionExecutor
from lagentlike.actions.toolsets import availability, tools_of
from lagentlike.actions.vision import Vision
from lagentlike.llms import AsyncGPTAPI, GPTAPI
from lagentlike.schema import AgentMessage, ToolCall, ToolResult

PNG = b"\x89PNG\r\n\x1a\nrest"


class Handler(BaseHTTPRequestHandler):
    """A model that says what it was shown."""

    asked: list[dict[str, Any]] = []

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        choice = {"index": 0, "message": {"role": "assistant", "content": "a cat"}, "finish_reason": "stop"}
        body = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def address() -> Iterator[str]:
    Handler.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def call(tool: Vision, **arguments: Any) -> ToolResult:
    message = AgentMessage(content="", tool_calls=[ToolCall("vision_analyze", arguments)])
    results = ActionExecutor([tool])(message).tool_results
    assert results is not None
    return results[0]


def test_a_file_is_sent_as_it_is_and_an_address_as_an_address(address: str, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(PNG)
    llm = GPTAPI("seer", key=None, api_base=address)
    tool = Vision(llm, tmp_path)
    assert call(tool, image="cat.png", question="What is it?").text == "a cat"
    assert call(tool, image="https://www.example.org/cat.png", question="What is it?").text == "a cat"
    parts = [asked["messages"][0]["content"] for asked in Handler.asked]
    assert parts[0][0] == {"type": "text", "text": "What is it?"}
    assert parts[0][1]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgpyZXN0"
    assert parts[1][1]["image_url"]["url"] == "https://www.example.org/cat.png"
    llm.close()


def test_an_async_model_serves_too(address: str, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(PNG)
    assert call(
        Vision(AsyncGPTAPI("seer", key=None, api_base=address), tmp_path), image="cat.png", question="?"
    ).success


def test_what_is_no_image_below_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    tool = Vision(GPTAPI("seer", key=None, api_base="http://127.0.0.1:1/v1"), tmp_path)
    assert "no PNG, JPEG, GIF or WebP" in call(tool, image="a.txt", question="?").text
    assert "leads out of" in call(tool, image="/etc/passwd", question="?").text
    assert "there is no file" in call(tool, image="b.png", question="?").text


def test_the_toolset_is_there_where_the_environment_names_a_model(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LAGENTLIKE_VISION_MODEL", "LAGENTLIKE_VISION_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert "LAGENTLIKE_VISION_MODEL" in str(availability()["vision"])
    assert tools_of(["vision"]) == []
    monkeypatch.setenv("LAGENTLIKE_VISION_MODEL", "seer")
    assert "OPENAI_API_KEY" in str(availability()["vision"])
    monkeypatch.setenv("LAGENTLIKE_VISION_BASE_URL", address)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.png").write_bytes(PNG)
    (tool,) = tools_of(["vision"])
    assert isinstance(tool, Vision)
    assert call(tool, image="cat.png", question="?").text == "a cat"
    assert Handler.asked[0]["model"] == "seer"
