"""What a trace file holds, whoever writes it and however that ends."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import calculator
from lagentlike.agents import Agent, ReAct
from lagentlike.errors import InvalidArgument, ServerError
from lagentlike.llms import GPTAPI, ScriptedLLM
from lagentlike.schema import ToolCall
from lagentlike.tracing import JSONLTracer, read_trace

from ..llms.fault_server import FaultServer, refuse

SCRIPT = [ToolCall("calculator", {"expression": "6 * 7"}, id="one"), "The answer is forty-two."]
KEY = "gsk_verysecret0123456789"


def test_a_file_has_one_line_for_each_span(tmp_path: Path) -> None:
    with JSONLTracer(tmp_path / "trace.jsonl") as tracer:
        ReAct(ScriptedLLM(SCRIPT), [calculator])("What is six by seven?")
    lines = tracer.path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == read_trace(tracer.path)
    assert [span["kind"] for span in read_trace(tracer.path)].count("tool") == 1
    assert tracer.path.stat().st_mode & 0o777 == 0o600


def test_without_content_nothing_of_what_was_said_is_in_the_file(tmp_path: Path) -> None:
    with JSONLTracer(tmp_path / "trace.jsonl") as tracer:
        ReAct(ScriptedLLM(SCRIPT), [calculator])("What is six by seven?")
    written = tracer.path.read_text()
    assert not any(said in written for said in ("six by seven", "6 * 7", "forty-two", '"42"'))


def test_with_content_it_is(tmp_path: Path) -> None:
    with JSONLTracer(tmp_path / "trace.jsonl", content=True) as tracer:
        ReAct(ScriptedLLM(SCRIPT), [calculator])("What is six by seven?")
    (tool,) = [span for span in read_trace(tracer.path) if span["kind"] == "tool"]
    assert tool["content"] == {"arguments": {"expression": "6 * 7"}, "result": "42"}
    outermost = read_trace(tracer.path)[-1]["content"]
    assert outermost["messages"] == ["What is six by seven?"]
    assert outermost["reply"]["content"] == "The answer is forty-two."


@pytest.mark.parametrize("content", [False, True])
def test_no_secret_is_ever_written(content: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCH_API_KEY", "from-the-environment")

    def fetch(url: str, api_key: str) -> str:
        """Fetch a page."""
        raise ServerError(f"{url} did not take {api_key}, nor from-the-environment")

    arguments = {"url": f"https://ann:{KEY}@host/x?key=0123456789abcdef", "api_key": "plain-looking"}
    with FaultServer(refuse(401, f"Incorrect API key provided: {KEY}")) as server:
        refused = GPTAPI("m", api_base=server.url, key=KEY, headers={"X-Api-Key": KEY})
        with JSONLTracer(tmp_path / "trace.jsonl", content=content, secrets=["plain-looking"]) as tracer:
            with pytest.raises(Exception, match="401"):
                Agent(refused)("Q")
            script = [ToolCall("fetch", arguments), f"I used {KEY} as Bearer abcdefgh12345678."]
            ReAct(ScriptedLLM(script), [fetch])(f"My key is {KEY}")
            with pytest.raises(ValueError, match=KEY):
                Agent(ScriptedLLM([ValueError(f"api_key={KEY} at https://x:{KEY}@host")]))("Q")
    written = tracer.path.read_text()
    assert "plain-looking" not in written
    for secret in ("from-the-environment", "0123456789abcdef", "abcdefgh12345678"):
        assert secret not in written
    if not content:
        assert KEY not in written


def test_a_key_that_is_named_is_in_no_text(tmp_path: Path) -> None:
    with JSONLTracer(tmp_path / "trace.jsonl", content=True, secrets=[KEY]) as tracer:
        Agent(ScriptedLLM([f"I know {KEY}"]), name=f"agent of {KEY}")(f"My key is {KEY}", session_id=f"by {KEY}")
        with pytest.raises(ValueError, match=KEY):
            Agent(ScriptedLLM([ValueError(KEY)]))("Q")
    assert KEY not in tracer.path.read_text()
    assert "I know ***" in tracer.path.read_text()


def test_twenty_threads_write_whole_lines(tmp_path: Path) -> None:
    agent = Agent(ScriptedLLM(lambda messages, params: "x" * 5000), name="one")
    with JSONLTracer(tmp_path / "trace.jsonl", content=True) as tracer:
        threads = [
            threading.Thread(target=lambda thread=thread: [agent("Q" * 999, session_id=(thread, n)) for n in range(10)])
            for thread in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    spans = read_trace(tracer.path)
    assert len(spans) == 20 * 10 * 2
    by_id = {span["span_id"]: span for span in spans}
    assert all(by_id[span["parent_id"]]["trace_id"] == span["trace_id"] for span in spans if span["kind"] == "request")


def test_closing_while_others_write_loses_only_their_lines(tmp_path: Path) -> None:
    agent = Agent(ScriptedLLM(lambda messages, params: "x"))
    over = threading.Event()

    def work(thread: int) -> None:
        number = 0
        while not over.is_set():
            agent("Q", session_id=(thread, number))
            number += 1

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    others = []
    for number in range(20):  # a number of files that are closed, and others opened, under the writers' feet
        with JSONLTracer(tmp_path / f"{number}.jsonl"):
            agent("Q", session_id=number)
        others.append((tmp_path / f"{number}.txt").open("w"))
    over.set()
    for thread in threads:
        thread.join()
    for other in others:
        other.close()
    assert all(read_trace(path) for path in tmp_path.glob("*.jsonl"))
    assert not [path for path in tmp_path.glob("*.txt") if path.read_text()]


WRITER = """
import sys
from lagentlike import Agent, ScriptedLLM
from lagentlike.tracing import JSONLTracer
agent = Agent(ScriptedLLM(lambda messages, params: "x" * 3000))
with JSONLTracer(sys.argv[1], content=True):
    for number in range(1_000_000):
        agent("Q", session_id=number % 10)
        print(number, flush=True)
"""


def test_processes_that_are_killed_leave_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    for _ in range(2):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            for _ in range(5):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            writer.stdout.close()
    spans = read_trace(path)
    assert len(spans) >= 2 * 2 * 5 * 2
    assert len({span["span_id"] for span in spans}) == len(spans)


def test_a_line_that_is_cut_off_is_passed_over_and_the_next_writer_begins_a_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "trace.jsonl"
    for number in range(2):
        with JSONLTracer(path):
            Agent(ScriptedLLM(["x"]), name=f"agent {number}")("Q")
        path.write_bytes(path.read_bytes()[:-20] + b"\n\n" * number)
        with caplog.at_level(logging.WARNING):
            assert len(read_trace(path)) == number + 1
    path.write_bytes(path.read_bytes() + b'{"ki')
    assert len(read_trace(path)) == 2
    assert "line 4 of" in caplog.text
    assert "is cut off" in caplog.text


@pytest.mark.parametrize("text", ["what is this?\n", '{"kind": "turn"}\n', "[]\n"])
def test_what_is_no_trace_is_refused_with_the_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with JSONLTracer(path):
        Agent(ScriptedLLM(["x"]))("Q")
    path.write_text(path.read_text() + text)
    with pytest.raises(InvalidArgument, match="line 3 is no span"):
        read_trace(path)


def test_a_file_that_cannot_be_written_or_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be written"):
        JSONLTracer(tmp_path)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_trace(tmp_path / "nowhere")


def test_a_full_disk_ends_no_turn(caplog: pytest.LogCaptureFixture) -> None:
    with JSONLTracer("/dev/full"):
        assert Agent(ScriptedLLM(["Hello"]))("Q").content == "Hello"
    assert "JSONLTracer.end failed" in caplog.text


def test_after_a_line_that_a_full_disk_cut_off_the_next_one_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(ScriptedLLM(["one", "two", "three"]), name="speaker")
    with JSONLTracer(tmp_path / "trace.jsonl", content=True) as tracer:
        agent("Q")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (tracer.path.stat().st_size + 40, limits[1]))
        try:
            agent("Q")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        agent("Q")
    assert caplog.text.count("JSONLTracer.end failed") == 2
    spans = read_trace(tracer.path)
    assert [span["content"].get("reply", {}).get("content") for span in spans] == [None, "one", None, "three"]
    assert len(spans[2]["content"]["messages"]) == 5
    assert "is cut off" in caplog.text


def test_a_forked_child_writes_to_the_same_file(tmp_path: Path) -> None:
    agent: Any = Agent(ScriptedLLM(lambda messages, params: "x"), name="one")
    with JSONLTracer(tmp_path / "trace.jsonl") as tracer:
        child = os.fork()
        if child == 0:
            agent("Q", session_id="child")
            os._exit(0)
        agent("Q", session_id="parent")
        assert os.waitpid(child, 0)[1] == 0
    sessions = sorted(span["session_id"] for span in read_trace(tracer.path) if span["kind"] == "turn")
    assert sessions == ["child", "parent"]
