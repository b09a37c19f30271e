"""One agent, defined once, says and remembers the same wherever and however it runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

from lagentlike.agents import AsyncReAct, ReAct
from lagentlike.memory import Keeper, open_store
from lagentlike.serving import (
    AgentServer,
    AsyncHTTPAgentClient,
    AsyncStreamingHTTPAgentClient,
    HTTPAgentClient,
    HTTPAgentServer,
    StreamingHTTPAgentClient,
)

from .transcript import define, KINDS, QUESTIONS, SESSION, talk, Transcript, without_call_ids

ROOT = Path(__file__).resolve().parent.parent


@asynccontextmanager
async def served(kind: type[ReAct]) -> AsyncIterator[AgentServer]:
    async with AgentServer(define(kind), port=0) as server:
        yield server


async def in_this_process(kind: type[ReAct], folder: Path) -> Transcript:
    return await talk(define(kind))


async def behind_http(kind: type[ReAct], client: type[HTTPAgentClient], folder: Path) -> Transcript:
    async with served(kind) as server:
        return await talk(client(url=server.url))


async def in_another_process(folder: Path) -> Transcript:
    with HTTPAgentServer(config="tests.transcript.define", port=0) as agent:
        return await talk(agent)


async def behind_chat_completions(stream: bool, folder: Path) -> Transcript:
    replies, session = [], str(SESSION)
    async with (
        served(AsyncReAct) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        for question in QUESTIONS:
            asked = {"model": "assistant", "messages": [{"role": "user", "content": question}], "user": session}
            if stream:
                chunks = await client.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]
                replies.append("".join([chunk.choices[0].delta.content or "" async for chunk in chunks]))
            else:
                answer = await client.chat.completions.create(**asked)  # type: ignore[call-overload]
                replies.append(answer.choices[0].message.content)
        return replies, server.unit.state_dict(session)


CLIENTS = (HTTPAgentClient, AsyncHTTPAgentClient, StreamingHTTPAgentClient, AsyncStreamingHTTPAgentClient)

# Where an agent runs, by name: a new way of running agents gets a line here. Ray's actors are in `test_ray_actor.py`,
# where a cluster is.
FORMS: dict[str, Callable[[Path], Awaitable[Transcript]]] = {
    **{f"{kind.__name__}": partial(in_this_process, kind) for kind in KINDS},
    **{
        f"{kind.__name__} through {client.__name__}": partial(behind_http, kind, client)
        for kind, client in zip(KINDS, CLIENTS, strict=True)
    },
    "in another process": in_another_process,
    "as chat completions": partial(behind_chat_completions, False),
    "as streamed chat completions": partial(behind_chat_completions, True),
}


@pytest.fixture(scope="module")
def expected() -> Transcript:
    """What it says where it is simplest."""
    return asyncio.run(talk(define(ReAct)))


def test_the_conversation_is_one_worth_comparing(expected: Transcript) -> None:
    replies, state = expected
    assert replies[1:3] == ["The result of 12 * 34 is 408.", "Your name is Ann."]
    assert list(state) == ["memory", "agent.memory"]
    assert len(state["agent.memory"]) == 10  # four questions, four answers, a call and its result


@pytest.mark.parametrize("form", FORMS)
def test_it_says_and_remembers_the_same(form: str, expected: Transcript, tmp_path: Path) -> None:
    replies, state = asyncio.run(FORMS[form](tmp_path))
    assert replies == expected[0]
    assert without_call_ids(state) == without_call_ids(expected[1])


async def test_it_goes_on_from_each_store(store_place: str, expected: Transcript) -> None:
    """Each turn by a new agent, over what the last one kept; blocking and async ones in turn."""
    replies = []
    for question, colour in zip(QUESTIONS, (AsyncReAct, ReAct, AsyncReAct, ReAct), strict=True):
        agent = define(colour)
        async with open_store(store_place) as store:
            agent.keep(store)
            called: Any = agent(question, session_id=SESSION)
            replies.append((await called if agent.colour.is_async else called).content)
    last = define(ReAct)
    async with open_store(store_place) as store:
        await Keeper(last, store).fetch(SESSION)
    assert replies == expected[0]
    assert without_call_ids(last.state_dict(SESSION)) == without_call_ids(expected[1])


def test_it_goes_on_after_its_server_was_killed(store_place: str, expected: Transcript) -> None:
    """A real server, killed with SIGKILL after the first and the second turn."""
    replies, state = [], {}
    for questions in ([QUESTIONS[0]], [QUESTIONS[1]], QUESTIONS[2:]):
        command = [sys.executable, "-m", "lagentlike.cli", "serve", "tests.transcript:define", "--port", "0"]
        with subprocess.Popen(
            [*command, "--store", store_place], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as server:
            assert server.stdout is not None
            agent = HTTPAgentClient(url=server.stdout.readline().split(" at ")[1].split(",")[0])
            replies += [agent(question, session_id=SESSION).content for question in questions]
            state = agent.state_dict(SESSION)
            server.kill()
    assert replies == expected[0]
    assert without_call_ids(state) == without_call_ids(expected[1])
