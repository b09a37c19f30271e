"""Agents, datasets and the checks that a run must stand, for the tests of batches."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from lagentlike.agents import AsyncAgent, AsyncReAct
from lagentlike.llms import AsyncScriptedLLM
from lagentlike.records import from_sharegpt, read_records, read_sharegpt, records_beside, to_sharegpt
from lagentlike.rollouts.batch.journal import read_journal
from lagentlike.schema import ToolCall
from lagentlike.tools import tool

LATENCY = 0.004


def echo(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
    """The prompt again; some prompts are trouble."""
    text = messages[-1]["content"]
    if text.startswith("fail"):
        raise RuntimeError(f"no luck with {text}")
    if text.startswith("die"):
        os._exit(13)
    return f"echo {text}"


def make() -> AsyncAgent:
    """An agent that takes a moment."""
    return AsyncAgent(AsyncScriptedLLM(echo, latency=LATENCY), "Echo.", name="echo")


def noting(path: str) -> AsyncReAct:
    """An agent whose tool leaves the sample's id in a file, and then takes its time."""

    @tool
    async def note(session_id: Any) -> str:
        """Note the sample's id."""
        with open(path, "a") as file:
            file.write(f"{session_id}\n")
        await asyncio.sleep(0.05)
        return "noted"

    def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> Any:
        return "done" if messages[-1]["role"] == "tool" else ToolCall("note", {}, id="call")

    return AsyncReAct(AsyncScriptedLLM(answer), actions=[note])


def slow() -> AsyncAgent:
    """An agent that takes a minute."""
    return AsyncAgent(AsyncScriptedLLM(echo, latency=60.0), name="echo")


def steady() -> AsyncAgent:
    """An agent that takes a tenth of a second."""
    return AsyncAgent(AsyncScriptedLLM(echo, latency=0.1), "Echo.", name="echo")


def placed() -> AsyncAgent:
    """An agent that says on which node of a Ray cluster it is."""
    import ray

    where = ray.get_runtime_context().get_node_id()
    return AsyncAgent(AsyncScriptedLLM(lambda messages, params: where, latency=0.1), name="placed")


def broken() -> AsyncAgent:
    """No agent at all."""
    raise RuntimeError("there is no model here")


def dying() -> AsyncAgent:
    """The end of the worker."""
    os._exit(7)


def write_rows(path: Path, rows: list[Any]) -> Path:
    """A dataset file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts(path: Path, number: int) -> Path:
    """A dataset of so many prompts."""
    return write_rows(path, [{"prompt": f"say {place}", "tag": place} for place in range(number)])


def check_run(folder: Path, expected: Counter[str]) -> list[str]:
    """Fail unless the three files agree, and hold one sample for each expected answer; the ids, sorted."""
    trajectories = folder / "trajectories.jsonl"
    records = list(read_records(records_beside(trajectories)))
    ids = [record.id for record in records]
    assert len(set(ids)) == len(ids)
    assert Counter(record.messages[-1].content for record in records) == expected
    derived = [json.loads(line) for line in trajectories.read_text().splitlines()]
    assert derived == [to_sharegpt(record) for record in records]
    assert len([from_sharegpt(row) for row in derived]) == len(list(read_sharegpt(trajectories)))
    damages: list[Any] = []
    journaled = [entry["key"] for entry in read_journal(folder / "journal.log", damages) if entry["kind"] == "done"]
    assert not damages
    assert sorted(journaled) == sorted(ids)
    return sorted(ids)
