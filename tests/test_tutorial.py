"""The tutorial's programs, unchanged but for the package's name and the model, do what the tutorial says.

Each is a file of `tests/tutorial`, run as a program of its own. Where a large model is meant, a model server on
loopback plays it: the embedded model where it can, a script where it cannot.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from lagentlike.llms import AsyncScriptedLLM, AsyncTinyLM
from lagentlike.serving.model_server import ModelServer

PROGRAMS = Path(__file__).parent / "tutorial"
ROOT = PROGRAMS.parents[1]


@contextmanager
def serving(llm: Any, *names: str) -> Iterator[int]:
    """The port of a server of a model."""
    started, stop, ports = threading.Event(), asyncio.Event(), []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with ModelServer(llm, list(names), port=0) as server:
            ports.append(server.port)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(30)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def run(
    program: str,
    folder: Path,
    *arguments: str,
    model_port: int = 0,
    search_port: int = 0,
    changes: Mapping[str, str] | None = None,
) -> str:
    """What a program prints."""
    text = (PROGRAMS / program).read_text(encoding="utf-8")
    ports = {"127.0.0.1:8000": f"127.0.0.1:{model_port}", "127.0.0.1:8001": f"127.0.0.1:{search_port}"}
    for old, new in {**(changes or {}), **ports}.items():
        text = text.replace(old, new)
    path = folder / program
    path.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "MPLBACKEND": ""}
    done = subprocess.run(
        [sys.executable, path, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def scripted(answer: Callable[[list[Any], dict[str, Any]], str]) -> AsyncScriptedLLM:
    """A model that ends its answers at the stop words, as real ones do."""

    def stopped(messages: list[Any], params: dict[str, Any]) -> str:
        text = answer(messages, params)
        ends = [text.find(word) for word in params.get("stop_words") or () if word in text]
        return text[: min(ends)] if ends else text

    return AsyncScriptedLLM(stopped, chunk_size=2)


QWEN = "Qwen2.5-32B-Instruct"
GPT = "gpt-4o-2024-05-13"


def test_models_as_agents(tmp_path: Path) -> None:
    assert re.match(r"content='.*' sender='Agent'", run("models_as_agents.py", tmp_path), re.DOTALL)


def test_models_behind_a_server(tmp_path: Path) -> None:
    llm = scripted(lambda messages, params: "典")
    with serving(llm, QWEN) as port:
        printed = run("models_behind_a_server.py", tmp_path, model_port=port)
    assert printed.startswith("content='典' sender='Agent'")
    asked = llm.requests[0]
    assert asked.messages == [
        {"role": "system", "content": "你的回答只能从“典”，“孝”，“急”三个字中选一个。"},
        {"role": "user", "content": "今天的天气情况怎么样"},
    ]
    wanted = {"top_k": 1, "temperature": 1.0, "stop_words": ["<|im_end|>"], "max_new_tokens": 1024}
    assert {name: asked.params.get(name) for name in wanted} == wanted


def test_streaming(tmp_path: Path) -> None:
    with serving(scripted(lambda messages, params: "人生的意义在于追问意义。"), QWEN) as port:
        printed = run("streaming.py", tmp_path, model_port=port)
    assert printed == "Bot: 人生的意义在于追问意义。\n"


def test_custom_message_aggregation(tmp_path: Path) -> None:
    llm = scripted(lambda messages, params: "【雨】")
    with serving(llm, QWEN) as port:
        printed = run("custom_aggregation.py", tmp_path, model_port=port)
    assert "content='【雨】'" in printed
    assert llm.requests[0].messages == [
        {"role": "user", "content": "今天天气"},
        {"role": "assistant", "content": "【晴】"},
        {"role": "user", "content": "昨天天气"},
    ]


def test_flexible_response_formatting(tmp_path: Path) -> None:
    text = "The multiple and factor of 63 is 63 or -63.\n```python\nprint(63 * -63)\n```\nDone."
    llm = scripted(lambda messages, params: text)
    with serving(llm, QWEN) as port:
        message = json.loads(run("response_formatting.py", tmp_path, model_port=port))
    assert message["formatted"] == {
        "tool_type": "code interpreter",
        "thought": "The multiple and factor of 63 is 63 or -63.\n",
        "action": "print(63 * -63)",
        "status": 1,
    }
    assert message["sender"] == "Formatting"
    assert llm.requests[0].params["stop_words"] == ["\n```\n"]


def test_single_agent(tmp_path: Path) -> None:
    printed = run("single_agent.py", tmp_path, "What is the result of 12 * 34?")
    answer, _, memory = printed.partition("-" * 120)
    assert "408" in answer
    turns = memory.split("*" * 80)
    assert [turn.split(":\n\n")[0].strip() for turn in turns[1:]] == ["user", "Agent", "ActionExecutor", "Agent"]
    assert "```python\nprint(12 * 34)" in turns[2]
    assert "408" in turns[3]


CODE = """\
from fractions import Fraction
b = [1, -3]
k = Fraction(2, sum(x * x for x in b))
print(*[k * x for x in b])"""


def test_single_agent_on_the_problem_of_the_tutorial(tmp_path: Path) -> None:
    def answer(messages: list[Any], params: dict[str, Any]) -> str:
        last = messages[-1]["content"]
        if "\\begin{pmatrix} 1 \\\\ -3 \\end{pmatrix}" in last:
            return f"The projection is (a.b / b.b) b.\n```python\n{CODE}\n```\n"
        return f"The projection is ({last.strip()})."

    llm = scripted(answer)
    model = f'GPTAPI(\n            "{QWEN}", key="YOUR_KEY", api_base="http://127.0.0.1:8000/v1/chat/completions",'
    changes = {"import TinyLM": "import GPTAPI", "TinyLM(\n            path=model_path,": model}
    with serving(llm, QWEN) as port:
        printed = run("single_agent.py", tmp_path, model_port=port, changes=changes)
    assert printed.startswith("The projection is (1/5 -3/5).\n")
    assert len(llm.requests) == 2
    assert llm.requests[1].messages[2]["content"].endswith(f"{CODE}\n```\n")  # the call is whole again


def check_blogger(printed: str) -> None:
    post, writer, critic = printed.split("-" * 120)
    assert writer.rstrip().endswith(post.strip())
    assert [turn.split(":\n\n")[0].strip() for turn in writer.split("*" * 80)[1:]] == [
        "user", "writer", "critic", "writer", "critic", "writer", "critic", "writer",
    ]  # fmt: skip
    assert [turn.split(":\n\n")[0].strip() for turn in critic.split("*" * 80)[1:]] == ["writer", "critic"] * 3
    assert critic.count("Reflect and provide critique on the following writing. \n\n") == 3
    assert "Reflect and provide critique" not in writer
    assert "the recent updates in AI" in writer
    assert "Pop Music" not in printed


def test_multiple_agents(tmp_path: Path) -> None:
    def answer(messages: list[Any], params: dict[str, Any]) -> str:
        turn = len(messages) // 2
        if messages[0]["content"].startswith("You are an writing assistant"):
            topic = messages[1]["content"].split("recent updates in ")[1].split(".")[0]
            return f"Draft {turn} on {topic}."
        return f"Critique {turn} of: {messages[-1]['content'].splitlines()[-1]}"

    llm = scripted(answer)
    with serving(llm, GPT) as port:
        printed = run("multiple_agents.py", tmp_path, model_port=port)
    assert printed.startswith("Draft 4 on AI.\n")
    assert "Critique 3 of: Draft 3 on AI." in printed
    check_blogger(printed)
    assert llm.answered == 5 * 7


def test_multiple_agents_with_the_embedded_model(tmp_path: Path) -> None:
    llm = AsyncTinyLM()
    with serving(llm, GPT) as port:
        short = {"max_new_tokens=2048": "max_new_tokens=128"}
        printed = run("multiple_agents.py", tmp_path, model_port=port, changes=short)
    check_blogger(printed)
    assert llm.usage.requests == 5 * 7


class SearchPages(BaseHTTPRequestHandler):
    """A web search like Bing's, with one page to find."""

    GDP = "China's GDP in trillion US dollars: 2019 14.28, 2020 14.69, 2021 17.82, 2022 17.88, 2023 17.79."

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/v7.0/search":
            query = parse_qs(address.query)["q"][0]
            page = {"url": f"http://{self.headers['Host']}/gdp", "name": "GDP of China", "snippet": query}
            allowed = self.headers.get("Ocp-Apim-Subscription-Key") == "YOUR_BING_API_KEY"
            body, kind = json.dumps({"webPages": {"value": [page]}} if allowed else {}), "application/json"
        else:
            body, kind = f"<html><body><p>{self.GDP}</p></body></html>", "text/html"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name in the base class
        """Nothing on stderr."""


@contextmanager
def searchable() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), SearchPages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


PLOT = """\
import matplotlib.pyplot as plt
years, gdp = {years}, {gdp}
plt.plot(years, gdp)
plt.title("GDP of China")
plt.show()
"""


def team(messages: list[Any], params: dict[str, Any]) -> str:
    """A researcher that searches and reads, and a charter that draws what it is told."""
    system, last = messages[0]["content"], messages[-1]
    if "accurate data" in system:
        if last["content"].startswith("Fetch the China's GDP"):
            call = {"name": "WebBrowser.search", "parameters": {"query": "China GDP past 5 years"}}
        elif "trillion" not in last["content"]:
            assert "GDP of China" in last["content"], last["content"]
            call = {"name": "WebBrowser.select", "parameters": {"select_ids": [0]}}
        else:
            return "The data: " + re.findall(r"(?:\d{4} [\d.]+(?:, )?)+", last["content"])[0]
        return f"I need data.\n```json\n{json.dumps(call)}\n```\n"
    if last["content"].startswith("The data: "):
        pairs = re.findall(r"(\d{4}) ([\d.]+\d)", last["content"])
        code = PLOT.format(years=[int(year) for year, _ in pairs], gdp=[float(gdp) for _, gdp in pairs])
        return f"I draw it.\n```python\n{code}```\n"
    assert "](" in last["content"], last["content"]
    return f"Final Answer: the line graph is drawn, {last['content'].strip()}"


def test_a_workflow_of_agents(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    llm = scripted(team)
    with searchable() as search_port, serving(llm, GPT) as port:
        printed = run("workflow.py", tmp_path, model_port=port, search_port=search_port)
    assert printed.startswith("Final Answer: the line graph is drawn, [image](")
    image = Path(re.findall(r"\[image\]\((.+?)\)", printed)[0])
    assert image.suffix == ".png"
    state = json.loads((tmp_path / "visualizer.json").read_text(encoding="utf-8"))
    assert [message["sender"] for message in state["researcher.memory"]] == [
        "user", "researcher", "ActionExecutor", "researcher", "ActionExecutor", "researcher",
    ]  # fmt: skip
    assert [message["sender"] for message in state["charter.memory"]] == [
        "researcher", "charter", "ActionExecutor", "charter",
    ]  # fmt: skip
    assert "2019 14.28" in state["researcher.memory"][-1]["content"]
    assert [message["content"] for message in state["memory"]][-1] + "\n" == printed
    assert "plt.plot(years, gdp)" in llm.requests[-1].messages[-2]["content"]
    assert llm.requests[0].params["stop_words"] == ["```\n", "```python"]
    assert llm.requests[-1].params["stop_words"] == ["```\n"]
