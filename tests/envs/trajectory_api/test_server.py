"""The trajectory API of ours, as its clients see it, over real connections."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import aiohttp
import pytest

from lagentlike.envs.groups import ScoredGroup
from lagentlike.envs.trajectory_api import TrajectoryClient, TrajectoryServer
from lagentlike.envs.trajectory_api.queue import EnvRegistration, pick, TrainerRegistration, TrajectoryQueue
from lagentlike.errors import InvalidArgument, TrajectoryAPIError


def group(rows: int, env_id: int | None = 0, first: int = 0) -> ScoredGroup:
    tokens = [[7, first + row] for row in range(rows)]
    return ScoredGroup(
        tokens=tokens,
        masks=[[-100, ids[1]] for ids in tokens],
        scores=[float(row) for row in range(rows)],
        inference_logprobs=[[1.0, -0.5] for _ in tokens],
        env_id=env_id,
    )


async def raw(url: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url + path, data=data, headers=headers) as response,
    ):
        text = await response.text()
        return response.status, json.loads(text) if text.startswith(("{", "[")) else text


async def test_an_environment_waits_for_the_trainer_and_its_groups_come_back_as_a_batch() -> None:
    async with TrajectoryServer(port=0) as server:
        client = TrajectoryClient(server.url)
        assert await client.info() == {"batch_size": -1, "max_token_len": -1}
        assert await client.register_env("sums", group_size=2, max_token_length=64) is None
        with pytest.raises(TrajectoryAPIError, match="Trainer not registered"):
            await client.batch()
        await client.register(batch_size=4, max_token_len=64, num_steps=3, wandb_project="p", wandb_group="g")
        assert await client.register_env("sums", group_size=2, max_token_length=64) is None, "nobody asked yet"
        assert await client.batch() is None
        told = await client.register_env("sums", group_size=2, max_token_length=64)
        assert told is not None
        assert (told["env_id"], told["wandb_name"], told["num_steps"]) == (0, "sums_0", 3)
        assert await client.wandb_info() == {"group": "g", "project": "p"}

        await client.send(group(2))
        assert await client.batch() is None
        assert (await client.status_env(0))["queue_size"] == 1
        await client.send([group(2, first=10)])
        batch = await client.wait_for_batch(timeout=10)
        assert batch == [group(2), group(2, first=10)]
        assert await client.status() == {"current_step": 1, "queue_size": 0}
        assert (await client.latest_example())["tokens"] == [[7, 10], [7, 11]]

        await client.disconnect_env(0)
        await client.reset()
        assert await client.status() == {"current_step": 0, "queue_size": 0}


async def test_a_packed_body_is_unpacked() -> None:
    async with TrajectoryServer(port=0) as server:
        client = TrajectoryClient(server.url)
        await client.register(batch_size=400, max_token_len=0)
        await client.send(group(400))  # large enough that the client packs it
        batch = await client.batch()
        assert batch is not None
        assert batch[0].rows == 400
        packed = gzip.compress(json.dumps(group(1).to_wire()).encode())
        status, _ = await raw(server.url, "POST", "/scored_data", packed, **{"Content-Encoding": "gzip"})
        assert status == 200


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"masks": [[-100]]}, "masks"),
        ({"scores": []}, "scores"),
        ({"tokens": []}, "no row"),
        ({"inference_logprobs": [[1.0]]}, "inference_logprobs"),
        ({"advantages": [[0.0, 0.0], [0.0, 0.0]]}, "advantages has 2 rows"),
        ({"messages": [[{"role": "user"}]]}, "without 'role' or 'content'"),
        ({"tokens": "x"}, "tokens"),
    ],
)
async def test_a_group_whose_rows_do_not_fit_together_is_refused(change: dict[str, Any], told: str) -> None:
    async with TrajectoryServer(port=0) as server:
        status, answer = await raw(server.url, "POST", "/scored_data", {**group(1).to_wire(), **change})
        assert status == 422
        assert told in answer["detail"]
        assert server.queue.status()["queue_size"] == 0


async def test_what_is_no_json_or_no_route_is_told_in_json() -> None:
    async with TrajectoryServer(port=0) as server:
        for method, path, body, status in (
            ("POST", "/scored_data", b"{", 422),
            ("POST", "/scored_data", b'{"scores": [NaN]}', 422),
            ("POST", "/register", {"batch_size": "many"}, 422),
            ("GET", "/status-env", {"env_id": 5}, 422),
            ("GET", "/nowhere", None, 404),
            ("GET", "/register", None, 405),
        ):
            got, answer = await raw(server.url, method, path, body)
            assert (got, bool(answer["detail"])) == (status, True), path


async def test_a_group_that_is_sent_again_counts_once() -> None:
    async with TrajectoryServer(port=0) as server:
        for _ in range(3):
            await raw(server.url, "POST", "/scored_data", group(1).to_wire(), **{"Idempotency-Key": "a"})
        await raw(server.url, "POST", "/scored_data", group(1).to_wire(), **{"Idempotency-Key": "b"})
        assert server.queue.status()["queue_size"] == 2


async def test_a_token_is_asked_for_where_there_is_one() -> None:
    with pytest.raises(InvalidArgument, match="token"):
        TrajectoryServer(host="0.0.0.0")
    async with TrajectoryServer(port=0, token="secret") as server:
        assert (await TrajectoryClient(server.url, token="secret").status())["queue_size"] == 0
        for token in (None, "secre", "secret2"):
            with pytest.raises(TrajectoryAPIError) as refused:
                await TrajectoryClient(server.url, token=token).status()
            assert refused.value.status == 401
            assert token is None or token not in str(refused.value)
        assert (await raw(server.url, "GET", "/health"))[0] == 200


async def test_too_many_groups_are_refused_with_a_word_to_come_later() -> None:
    async with TrajectoryServer(port=0, most_groups=1) as server:
        client = TrajectoryClient(server.url, retries=0)
        await client.send(group(1))
        with pytest.raises(TrajectoryAPIError) as refused:
            await client.send(group(1))
        assert refused.value.status == 503


async def test_groups_that_are_sent_together_are_taken_together_or_not_at_all() -> None:
    async with TrajectoryServer(port=0, most_groups=2) as server:
        client = TrajectoryClient(server.url, retries=0)
        await client.send(group(1))
        with pytest.raises(TrajectoryAPIError, match="503"):
            await client.send([group(1), group(1)])
        assert (await client.status())["queue_size"] == 1, "or sending them again would make a group count twice"


async def test_a_client_tries_again_until_the_server_is_there() -> None:
    async with TrajectoryServer(port=0) as server:
        port, url = server.port, server.url
    with pytest.raises(TrajectoryAPIError) as failed:
        await TrajectoryClient(url, retries=0).status()
    assert failed.value.status is None
    asking = asyncio.create_task(TrajectoryClient(url, retries=20).status())
    await asyncio.sleep(0.1)
    async with TrajectoryServer(port=port):
        assert await asyncio.wait_for(asking, 60) == {"current_step": 0, "queue_size": 0}


def test_a_batch_has_exactly_the_rows_it_should_have() -> None:
    assert pick([4, 4, 2, 2], 8) == [0, 1]
    assert pick([3, 2, 2, 2], 6) == [1, 2, 3], "the first that fit may not be the ones that make the sum"
    assert pick([4, 4], 6) is None
    assert pick([], 0) == [] == pick([5], 0)
    assert pick([5, 1], 1) == [1]


def registered(*envs: EnvRegistration, batch_size: int) -> TrajectoryQueue:
    queue = TrajectoryQueue()
    queue.register(TrainerRegistration(batch_size=batch_size, max_token_len=0))
    assert queue.next_batch() is None
    for env in envs:
        queue.register_env(env)
    return queue


def test_an_environment_gets_the_share_of_a_batch_that_it_is_promised() -> None:
    first, second = EnvRegistration(group_size=2), EnvRegistration(group_size=2, min_batch_allocation=0.5)
    queue = registered(first, second, batch_size=4)
    for _ in range(3):
        queue.add(group(2, env_id=0))
    assert queue.next_batch() is None, "half of each batch is the second one's"
    queue.add(group(2, env_id=1))
    batch = queue.next_batch()
    assert batch is not None
    assert sorted(str(one.env_id) for one in batch) == ["0", "1"]
    queue.disconnect_env(1)
    assert queue.next_batch() is not None, "who is gone is promised nothing"


def test_an_environment_is_told_its_share_of_the_work() -> None:
    queue = registered(
        EnvRegistration(group_size=2, max_token_length=100, weight=3),
        EnvRegistration(group_size=4, max_token_length=100, weight=1),
        batch_size=8,
    )
    queue.add(group(2, env_id=0))
    queue.add(group(4, env_id=1))
    first, second = queue.status_env(0), queue.status_env(1)
    assert (first["env_weight"], second["env_weight"]) == (0.75, 0.25)
    assert (first["queue_size"], second["queue_size"]) == (3, 1)
    assert (first["self_queue_size"], first["max_group_size"]) == (1, 4)


def test_a_group_that_no_batch_could_hold_is_refused() -> None:
    queue = registered(EnvRegistration(), batch_size=2)
    with pytest.raises(InvalidArgument, match="smaller groups"):
        queue.add(group(3))
