"""The contestants of `benchmarks/` do the work they are measured on."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks import workloads as w
from benchmarks.report import FIGURES
from benchmarks.rollouts import drift
from benchmarks.server import start
from benchmarks.tracing import measure as measure_tracing

CLIENTS = ["raw", "lagentlike"]


@asynccontextmanager
async def _client(name: str, behaviour: str) -> AsyncIterator[w.Client]:
    async with await start() as server:
        port = server.sockets[0].getsockname()[1]
        module = importlib.import_module(f"benchmarks.clients.{name}")
        client = module.Client(f"http://127.0.0.1:{port}/{behaviour}/v1/chat/completions")
        try:
            yield client
        finally:
            await client.close()


@pytest.mark.parametrize("name", CLIENTS)
async def test_converses(name: str) -> None:
    async with _client(name, "plain") as client:
        assert [await client.turn(0, w.QUESTION.format(number=number)) for number in range(3)] == [w.REPLY] * 3


@pytest.mark.parametrize("name", CLIENTS)
async def test_calls_the_tool_and_answers(name: str) -> None:
    async with _client(name, "tools") as client:
        assert await client.tool_session(0, w.TOOL_QUESTION) == w.ANSWER


@pytest.mark.parametrize("name", CLIENTS)
async def test_streams_the_whole_text(name: str) -> None:
    async with _client(name, "stream") as client:
        assert await client.stream(0, w.QUESTION.format(number=1)) == w.STREAMED


@pytest.mark.parametrize("name", CLIENTS)
async def test_refines_a_blog_post(name: str) -> None:
    async with _client(name, "1ms/plain") as client:
        assert await client.refine(0, w.BLOG_REQUEST.format(topic="tests")) == w.REPLY


async def test_rows_that_are_tokenized_again_drift_and_ours_do_not() -> None:
    found = await drift(2.0, chains=16)
    assert found["ours_percent"] == 0
    assert found["again_percent"] > 0


def test_every_workload_has_a_figure() -> None:
    assert {figure.workload for figure in FIGURES} == set(w.WORKLOADS)


def test_the_check_of_a_gpu_goes_through_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--device", "cpu", "--only", "losses"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["ok"]
    assert figures["losses"]["sft_whole"]["weights_off"] == 0


def test_the_measurement_of_tracing_counts_its_spans(tmp_path: Path) -> None:
    assert [measure_tracing(mode, 3, tmp_path)[1] for mode in ("none", "file", "content")] == [0, 21, 21]
