"""Batch runs: what they keep, what they go on with, how they end."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lagentlike.agents import Agent, AIAgent, AsyncAgent, AsyncAIAgent, AsyncReAct, AsyncStreamingAgent, HFAgent, ReAct
from lagentlike.errors import InvalidArgument, StateError
from lagentlike.llms import AsyncScriptedLLM, AsyncTinyLM, ScriptedLLM, TinyLM
from lagentlike.records import read_records, records_beside
from lagentlike.rollouts.batch import BatchRunner, BatchSettings, run_batch
from lagentlike.rollouts.batch.journal import read_journal
from lagentlike.rollouts.batch.pool import WorkersFailed
from lagentlike.tools import calculator

from . import making
from .making import broken, check_run, dying, echo, make, prompts, slow, write_rows


def kept(folder: Path) -> list[Any]:
    return list(read_records(records_beside(folder / "trajectories.jsonl")))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_gets_its_samples(tmp_path: Path, workers: int) -> None:
    dataset = prompts(tmp_path / "rows.jsonl", 7)
    result = run_batch(make, dataset, "run", folder=tmp_path, num_samples=2, num_workers=workers, batch_size=3)
    assert (result.total, result.done, result.set_aside, result.exit_code) == (14, 14, 0, 0)
    check_run(tmp_path / "run", Counter({f"echo say {place}": 2 for place in range(7)}))
    for record in kept(tmp_path / "run"):
        assert record.metadata["input"] == {"tag": record.metadata["row"]}
        assert record.messages[0].sender == "system"
        assert record.messages[0].content == "Echo."
    told = json.loads((tmp_path / "run" / "statistics.json").read_text())
    assert told["samples"] == {"done": 14, "completed": 14, "set_aside": 0}
    assert told["left"] == 0


@pytest.mark.parametrize(
    "agent",
    [
        ReAct(TinyLM(), actions=[calculator]),
        AsyncReAct(AsyncTinyLM(), actions=[calculator]),
        HFAgent(tools=[calculator]),
    ],
    ids=lambda agent: type(agent).__name__,
)
def test_agents_of_every_kind_leave_their_tool_calls(tmp_path: Path, agent: Any) -> None:
    dataset = write_rows(tmp_path / "rows.jsonl", [{"prompt": "What is the result of 12 * 34?", "answer": "408"}])
    run_batch(agent, dataset, "run", folder=tmp_path)
    (record,) = kept(tmp_path / "run")
    assert record.messages[-1].content == "The result of 12 * 34 is 408."
    assert record.usage.requests == 2
    assert record.model == "tinylm"
    assert [result.output for message in record.messages for result in message.tool_results or ()] == ["408"]
    assert record.tools[0]["function"]["name"] == "calculator"
    assert record.metadata["input"] == {"answer": "408"}


@pytest.mark.parametrize("workers", [0, 1])
def test_half_a_surrogate_pair_and_a_long_number_go_through_workers_and_back(tmp_path: Path, workers: int) -> None:
    rows = [{"prompt": "half \ud800", "long": 10**30}, {"prompt": "fail \ud800"}, {"prompt": "say"}]
    dataset = write_rows(tmp_path / "rows.jsonl", rows)
    result = run_batch(make, dataset, "run", folder=tmp_path, num_workers=workers, max_attempts=1)
    assert (result.done, result.set_aside) == (2, 1)
    told = json.loads((tmp_path / "run" / "statistics.json").read_text())
    assert "fail \ud800" in told["set_aside"][0]["error"]
    first = min(kept(tmp_path / "run"), key=lambda record: record.metadata["row"])
    assert (first.messages[-1].content, first.metadata["input"]) == ("echo half \ud800", {"long": 10**30})
    again = run_batch(make, dataset, "run", folder=tmp_path, resume=True)
    assert (again.done, again.set_aside, again.recovery.damages, again.recovery.mended) == (2, 1, [], [])


def test_a_reward_that_wants_what_no_row_has_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    llm = ScriptedLLM(lambda messages, params: "x")
    dataset = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a"}, {"prompt": "b", "id": 1}])
    with pytest.raises(InvalidArgument, match="nobody can fill its parameter 'answer'"):
        run_batch(Agent(llm), dataset, "run", folder=tmp_path, reward="exact_match")
    with pytest.raises(InvalidArgument, match="name='exact_mach'"):
        run_batch(Agent(llm), dataset, "run", folder=tmp_path, reward="exact_mach")
    assert not llm.requests
    write_rows(dataset, [{"prompt": "a"}, {"prompt": "b", "answer": "x"}])
    result = run_batch(Agent(llm), dataset, "run", folder=tmp_path, reward="exact_match", max_attempts=1)
    assert (result.done, result.set_aside) == (1, 1)


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def test_content_in_parts_is_asked_as_text_or_with_what_is_no_text(tmp_path: Path) -> None:
    said = {"type": "text", "text": "What is this?"}
    rows = [{"messages": [{"role": "user", "content": content}]} for content in ([said], [said, PICTURE])]
    llm = ScriptedLLM(lambda messages, params: "a picture")
    run_batch(Agent(llm), write_rows(tmp_path / "rows.jsonl", rows), "run", folder=tmp_path, batch_size=1)
    assert [request.last for request in llm.requests] == ["What is this?", [said, PICTURE]]


def test_streaming_agents_run_too(tmp_path: Path) -> None:
    agent = AsyncStreamingAgent(AsyncScriptedLLM(echo, chunk_size=2))
    run_batch(agent, prompts(tmp_path / "rows.jsonl", 2), "run", folder=tmp_path)
    check_run(tmp_path / "run", Counter(["echo say 0", "echo say 1"]))


def test_token_ids_are_kept_where_asked_for(tmp_path: Path) -> None:
    agent = AsyncReAct(AsyncTinyLM(), actions=[calculator])
    dataset = write_rows(tmp_path / "rows.jsonl", [{"prompt": "What is the result of 1 + 1?"}])
    run_batch(agent, dataset, "run", folder=tmp_path, keep_tokens=True)
    (record,) = kept(tmp_path / "run")
    spans = [message.tokens for message in record.messages if message.sender == record.agent]
    assert len(spans) == 2
    assert all(span.ids and len(span.logprobs) == len(span.ids) and span.prompt_ids for span in spans)


def test_rewards_are_kept_and_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "say 0", "answer": "echo say 0"}, {"prompt": "say 1", "answer": "no"}]
    result = run_batch(
        make, write_rows(tmp_path / "rows.jsonl", rows), "run", folder=tmp_path, reward="exact_match"
    )  # fmt: skip
    assert sorted(record.metadata["reward"]["reward"] for record in kept(tmp_path / "run")) == [0.0, 1.0]
    assert result.statistics["reward"]["mean"] == 0.5


def test_rows_with_the_same_prompt_are_samples_of_their_own(tmp_path: Path) -> None:
    rows = [{"prompt": "say it"}, {"prompt": "say it"}, {"prompt": "say it", "tag": 1}]
    run_batch(make, write_rows(tmp_path / "rows.jsonl", rows), "run", folder=tmp_path, num_samples=2)
    check_run(tmp_path / "run", Counter({"echo say it": 6}))


def test_a_run_that_is_there_is_not_touched_without_resume(tmp_path: Path) -> None:
    dataset = prompts(tmp_path / "rows.jsonl", 2)
    run_batch(make, dataset, "run", folder=tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(StateError, match="has a run already: resume it, or give another run_name"):
        run_batch(make, dataset, "run", folder=tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_resuming_adds_only_what_is_missing_and_keeps_the_ids(tmp_path: Path) -> None:
    dataset = prompts(tmp_path / "rows.jsonl", 6)
    run_batch(make, dataset, "run", folder=tmp_path, max_samples=2, resume=True)
    first = (tmp_path / "run" / "trajectories.jsonl").read_bytes()
    result = run_batch(make, dataset, "run", folder=tmp_path, num_samples=2, resume=True)
    assert result.recovery.done == 2
    assert (tmp_path / "run" / "trajectories.jsonl").read_bytes().startswith(first)
    ids = check_run(tmp_path / "run", Counter({f"echo say {place}": 2 for place in range(6)}))
    whole = run_batch(make, dataset, "whole", folder=tmp_path, num_samples=2)
    assert check_run(whole.folder, Counter({f"echo say {place}": 2 for place in range(6)})) == ids


@pytest.mark.parametrize("change", ["config", "dataset"])
def test_another_configuration_or_dataset_is_refused(tmp_path: Path, change: str) -> None:
    dataset = prompts(tmp_path / "rows.jsonl", 3)
    run_batch(make, dataset, "run", folder=tmp_path, config={"model": "a"})
    options: dict[str, Any] = {"config": {"model": "b" if change == "config" else "a"}, "resume": True}
    if change == "dataset":
        prompts(dataset, 2)
    with pytest.raises(StateError, match=f"is a run with another {change}.*give another run_name, or --force"):
        run_batch(make, dataset, "run", folder=tmp_path, **options)
    result = run_batch(make, dataset, "run", folder=tmp_path, force=True, **options)
    assert (result.recovery.dropped, result.recovery.redone) == (3 if change == "config" else 1, 0)
    check_run(tmp_path / "run", Counter(f"echo say {place}" for place in range(result.total)))


def test_rows_in_another_layout_are_the_same_rows(tmp_path: Path) -> None:
    dataset = write_rows(tmp_path / "rows.jsonl", [{"prompt": "say 0", "tag": 1}])
    run_batch(make, dataset, "run", folder=tmp_path)
    dataset.write_text('\n{"tag":1,   "prompt": "say 0"}')
    assert run_batch(make, dataset, "run", folder=tmp_path, resume=True).recovery.done == 1


def test_samples_that_were_set_aside_are_tried_again_when_asked_for(tmp_path: Path) -> None:
    calls = []

    def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        calls.append(messages[-1]["content"])
        return echo(messages, params)

    def healed(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        return f"echo {messages[-1]['content']}"

    dataset = write_rows(tmp_path / "rows.jsonl", [{"prompt": "fail"}, {"prompt": "say 1"}])
    ill, well = AsyncAgent(AsyncScriptedLLM(answer)), AsyncAgent(AsyncScriptedLLM(healed))
    options: dict[str, Any] = {"folder": tmp_path, "max_attempts": 2}
    assert run_batch(ill, dataset, "run", **options).set_aside == 1
    assert run_batch(well, dataset, "run", **options, resume=True).set_aside == 1
    assert calls.count("fail") == 2
    assert run_batch(ill, dataset, "run", **options, resume=True, retry_failed=True).set_aside == 1
    assert calls.count("fail") == 4
    result = run_batch(well, dataset, "run", **options, resume=True, retry_failed=True)
    assert (result.done, result.set_aside, result.statistics["set_aside"]) == (2, 0, [])
    check_run(tmp_path / "run", Counter(["echo fail", "echo say 1"]))
    result = run_batch(well, dataset, "run", **options, resume=True)
    assert (result.done, result.set_aside) == (2, 0)
    with pytest.raises(InvalidArgument, match="retry_failed=True: it goes with resume=True"):
        run_batch(well, dataset, "other", folder=tmp_path, retry_failed=True)


def test_a_poisoned_sample_is_set_aside_and_the_others_complete(tmp_path: Path) -> None:
    dataset = write_rows(tmp_path / "rows.jsonl", [{"prompt": "fail 1"}, {"prompt": "say 0"}, {"prompt": "say 1"}])
    result = run_batch(make, dataset, "run", folder=tmp_path, max_attempts=2)
    assert (result.done, result.set_aside) == (2, 1)
    (entry,) = result.statistics["set_aside"]
    assert (entry["row"], entry["attempts"], entry["error"]) == (0, 2, "RuntimeError: no luck with fail 1")
    check_run(tmp_path / "run", Counter(["echo say 0", "echo say 1"]))
    again = run_batch(make, dataset, "run", folder=tmp_path, max_attempts=2, resume=True)
    assert (again.done, again.set_aside) == (2, 1)
    kinds = Counter(entry["kind"] for entry in read_journal(tmp_path / "run" / "journal.log", []))
    assert kinds == {"run": 1, "done": 2, "failed": 1, "set_aside": 1}


def test_a_sample_that_ends_its_worker_is_found_and_set_aside(tmp_path: Path) -> None:
    rows = [{"prompt": "die now"}, *({"prompt": f"say {place}"} for place in range(8))]
    dataset = write_rows(tmp_path / "rows.jsonl", rows)
    result = run_batch(make, dataset, "run", folder=tmp_path, num_workers=1, batch_size=4, max_attempts=2)
    assert (result.done, result.set_aside) == (8, 1)
    assert "WorkerDied: the worker that ran it alone ended (exit code 13)" in result.statistics["set_aside"][0]["error"]
    check_run(tmp_path / "run", Counter(f"echo say {place}" for place in range(8)))


def test_workers_that_are_killed_are_replaced_and_their_samples_made_again(tmp_path: Path) -> None:
    dataset = prompts(tmp_path / "rows.jsonl", 400)
    done: list[Any] = []
    runner = BatchRunner(make, BatchSettings(dataset, "run", folder=tmp_path, num_workers=2, batch_size=2))
    thread = threading.Thread(target=lambda: done.append(runner.run()))
    thread.start()
    killed = 0
    records = tmp_path / "run" / "records" / "trajectories.jsonl"
    while thread.is_alive() and killed < 2:
        if records.exists() and records.stat().st_size > killed * 40_000:
            for pid in runner.workers[:1]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
        time.sleep(0.01)
    thread.join()
    assert killed == 2
    assert done[0].statistics["worker_restarts"] >= 1
    check_run(tmp_path / "run", Counter(f"echo say {place}" for place in range(400)))


@pytest.mark.parametrize(("source", "reason"), [(broken, "there is no model here"), (dying, "before they can begin")])
def test_a_run_whose_workers_cannot_work_says_why(tmp_path: Path, source: Any, reason: str) -> None:
    with pytest.raises(WorkersFailed, match=reason):
        run_batch(source, prompts(tmp_path / "rows.jsonl", 2), "run", folder=tmp_path, num_workers=1)


def test_a_sample_that_takes_too_long_fails(tmp_path: Path) -> None:
    dataset = prompts(tmp_path / "rows.jsonl", 1)
    result = run_batch(slow, dataset, "run", folder=tmp_path, timeout=0.05, max_attempts=1)
    assert "TimeoutError: the sample took longer" in result.statistics["set_aside"][0]["error"]


@pytest.mark.parametrize(
    "agent",
    [
        HFAgent(tools=[calculator]),
        AIAgent(enabled_toolsets=[], tools=[calculator]),
        AsyncAIAgent(enabled_toolsets=[], tools=[calculator]),
    ],
    ids=lambda agent: type(agent).__name__,
)
def test_conversations_go_on_where_the_agent_can(tmp_path: Path, agent: Any) -> None:
    messages = [
        {"role": "user", "content": "My name is Ann."},
        {"role": "assistant", "content": "Hello, Ann!"},
        {"role": "user", "content": "What is the result of 2 + 3?"},
    ]
    dataset = write_rows(tmp_path / "rows.jsonl", [{"messages": messages}])
    run_batch(agent, dataset, "run", folder=tmp_path)
    (record,) = kept(tmp_path / "run")
    assert [message.content for message in record.messages[:3]] == [message["content"] for message in messages]
    assert record.messages[-1].content == "The result of 2 + 3 is 5."


def test_conversations_are_refused_where_the_agent_takes_one_message(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    dataset = write_rows(tmp_path / "rows.jsonl", [{"messages": messages}])
    result = run_batch(Agent(ScriptedLLM(echo)), dataset, "run", folder=tmp_path)
    (entry,) = result.statistics["set_aside"]
    assert "takes one user message" in entry["error"]
    assert entry["attempts"] == 1


@contextmanager
def no_room(most: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("most", [900, 4_000, 9_000])
def test_a_full_disk_stops_the_run_with_nothing_damaged(tmp_path: Path, most: int) -> None:
    dataset = prompts(tmp_path / "rows.jsonl", 20)
    with no_room(most), pytest.raises(OSError, match="nothing was added"):
        run_batch(make, dataset, "run", folder=tmp_path, batch_size=2)
    for path in ("trajectories.jsonl", "records/trajectories.jsonl", "journal.log"):
        content = (tmp_path / "run" / path).read_bytes()
        assert len(content) <= most
        assert content == b"" or content.endswith(b"\n")
    result = run_batch(make, dataset, "run", folder=tmp_path, resume=True)
    assert result.recovery.damages == []
    check_run(tmp_path / "run", Counter(f"echo say {place}" for place in range(20)))


def test_a_run_that_is_stopped_keeps_what_is_done_and_goes_on_later(tmp_path: Path) -> None:
    dataset = prompts(tmp_path / "rows.jsonl", 300)
    runner = BatchRunner(make, BatchSettings(dataset, "run", folder=tmp_path, batch_size=2))
    records = tmp_path / "run" / "records" / "trajectories.jsonl"

    def stop() -> None:
        while not records.exists() or not records.stat().st_size:
            time.sleep(0.005)
        runner.stop(signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    result = runner.run()
    thread.join()
    assert 0 < result.done < 300
    assert result.exit_code == 143
    assert len(check_run(tmp_path / "run", Counter(record.messages[-1].content for record in kept(result.folder))))
    run_batch(make, dataset, "run", folder=tmp_path, resume=True)
    check_run(tmp_path / "run", Counter(f"echo say {place}" for place in range(300)))


def test_what_does_not_end_within_the_grace_is_given_up(tmp_path: Path) -> None:
    dataset = prompts(tmp_path / "rows.jsonl", 3)
    runner = BatchRunner(slow, BatchSettings(dataset, "run", folder=tmp_path, grace=0.2))
    threading.Timer(0.3, runner.stop).start()
    result = runner.run()
    assert (result.done, result.set_aside, result.exit_code) == (0, 0, 130)


def test_nothing_stays_behind(tmp_path: Path, no_leaks: None) -> None:
    run_batch(make, prompts(tmp_path / "rows.jsonl", 3), "run", folder=tmp_path, num_workers=1)
    run_batch(make, tmp_path / "rows.jsonl", "other", folder=tmp_path)


def test_workers_need_what_can_be_made_in_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="give num_workers=0, or a function that makes agents"):
        run_batch(make(), prompts(tmp_path / "rows.jsonl", 1), "run", folder=tmp_path, num_workers=1)
    with pytest.raises(InvalidArgument, match="give an agent, or a function that makes one"):
        run_batch(3, tmp_path / "rows.jsonl", "run", folder=tmp_path)


def chosen(greeting: str) -> Any:
    """What gives each sample its own agent, by its key."""
    return lambda key: Agent(ScriptedLLM(lambda messages, params: f"{greeting} {key}"))


def test_each_sample_may_have_an_agent_of_its_own(tmp_path: Path) -> None:
    run_batch(partial(chosen, "hi"), prompts(tmp_path / "rows.jsonl", 3), "run", folder=tmp_path)
    assert all(record.messages[-1].content == f"hi {record.id}" for record in kept(tmp_path / "run"))


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("run_name", "../x", "give letters"),
        ("batch_size", 0, "at least 1"),
        ("price", (1.0,), "dollars for a million tokens in, and out"),
        ("num_workers", -1, "at least 0"),
        ("max_samples", True, "at least 1"),
        ("timeout", 0, "give seconds"),
        ("grace", None, "give seconds"),
    ],
)
def test_wrong_settings_are_refused(name: str, value: Any, cure: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{name}=.*{cure}"):
        BatchSettings(**{"dataset_file": "x", "run_name": "run", name: value})


def test_settings_do_not_travel_through_the_environment(tmp_path: Path) -> None:
    before = dict(os.environ)
    run_batch(making.make, prompts(tmp_path / "rows.jsonl", 2), "run", folder=tmp_path, num_workers=1)
    assert dict(os.environ) == before
