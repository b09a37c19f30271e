"""Together with atroposlib itself: its run-api, its environments, its servers, all on the embedded model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web

from lagentlike.envs import AtroposAgent, ScoredGroup, TrajectoryClient, TrajectoryServer
from lagentlike.llms import AsyncTinyLM
from lagentlike.llms.tiny.engine import WEIGHTS
from lagentlike.tools import calculator

from .test_agent import QUESTION, teacher_forced, TEXT
from .trajectory_api.conversation import talk
from .trajectory_api.test_wire import RECORDED

pytestmark = [
    pytest.mark.skipif(find_spec("atroposlib") is None, reason="the extra lagentlike[atropos] is not installed"),
    pytest.mark.filterwarnings("default"),  # what atroposlib and the libraries it imports warn of is not ours
    pytest.mark.timeout(300),
]

WILD = 2.0
"""A temperature at which the embedded model is wrong at times; log-probabilities are the model's own all the same."""

OverAtropos = Callable[..., Any]


@pytest.fixture
def over_atropos() -> OverAtropos:
    from lagentlike.envs.atropos import over_atropos

    return over_atropos


@pytest.fixture
def run_api() -> Iterator[str]:
    """The URL of atroposlib's own trajectory API, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "atroposlib.cli.run_api", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def check(groups: list[ScoredGroup], rows: int) -> None:
    """What a trainer may rely on: equal lengths, masks of exactly what was sampled, its own log-probabilities."""
    assert sum(group.rows for group in groups) == rows
    for group in groups:
        assert group.inference_logprobs is not None
        assert len(group.tokens) == len(group.masks) == len(group.scores) == len(group.inference_logprobs)
        assert len(set(group.scores)) > 1
        for tokens, masks, logprobs in zip(group.tokens, group.masks, group.inference_logprobs, strict=True):
            assert len(tokens) == len(masks) == len(logprobs)
            expected = teacher_forced(tokens)
            assert any(mask != -100 for mask in masks)
            for place, (id_, mask) in enumerate(zip(tokens, masks, strict=True)):
                assert mask in (-100, id_)
                assert logprobs[place] == (1.0 if mask == -100 else pytest.approx(expected[place], abs=1e-3))


async def fetched(trainer: TrajectoryClient, serving: asyncio.Task[Any], steps: int, rows: int) -> None:
    """Fetch batches while an environment serves."""
    for _ in range(steps):
        waiting = asyncio.create_task(trainer.wait_for_batch(timeout=200))
        await asyncio.wait({waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await serving
        check(await waiting, rows)


async def test_what_is_recorded_of_run_api_is_what_it_answers(run_api: str) -> None:
    assert await talk(run_api) == json.loads(RECORDED.read_text(encoding="utf-8"))


async def test_our_environment_serves_a_trainer_over_atroposlibs_api(
    run_api: str, example: Callable[[str], ModuleType]
) -> None:
    config, _ = example("arithmetic").Arithmetic.config_init()
    config.agent_temperature = WILD
    env = example("arithmetic").Arithmetic(config)
    trainer = TrajectoryClient(run_api)
    await trainer.register(batch_size=8, max_token_len=1024, num_steps=2)
    assert await trainer.batch() is None
    serving = asyncio.create_task(env.serve(run_api))
    await fetched(trainer, serving, steps=2, rows=8)
    summary = await asyncio.wait_for(serving, 60)
    assert summary.groups >= 4
    assert (await trainer.status())["current_step"] >= 2
    assert len((await trainer.latest_example())["tokens"]) == 4


async def test_atroposlibs_environment_serves_a_trainer_over_our_api(
    over_atropos: OverAtropos, example: Callable[[str], ModuleType]
) -> None:
    over = over_atropos(example("arithmetic").Arithmetic, AsyncTinyLM())
    async with TrajectoryServer(port=0) as server:
        trainer = TrajectoryClient(server.url)
        config, servers = over.config_init()
        config.rollout_server_url, config.use_wandb, config.wandb_name = server.url, False, "sums"
        config.total_steps, config.agent_temperature = 1, WILD
        env = over(config, servers)
        await trainer.register(batch_size=8, max_token_len=1024, num_steps=1)
        assert await trainer.batch() is None
        serving = asyncio.create_task(env.env_manager())
        await fetched(trainer, serving, steps=2, rows=8)  # it serves until the step after its last one
        await asyncio.wait_for(serving, 120)
        assert env.env.failures == []


async def test_an_agent_on_a_server_manager_has_the_tokens_of_the_model_itself(
    over_atropos: OverAtropos, example: Callable[[str], ModuleType]
) -> None:
    over = over_atropos(example("arithmetic").Arithmetic, AsyncTinyLM())
    env = over(*over.config_init())
    direct = await AtroposAgent(AsyncTinyLM(), [calculator], TEXT).run(QUESTION)
    for server in (env.server, env.server.servers[0]):
        result = await AtroposAgent(server, [calculator], TEXT, tokenizer=env.tokenizer).run(QUESTION)
        assert result.success
        assert result.trajectory_data == direct.trajectory_data


async def generate(request: web.Request) -> web.Response:
    """What the servers do that atroposlib's vLLM and SGLang classes ask, here by the embedded model."""
    asked = await request.json()
    of_vllm = "prompt" in asked
    ids = asked["prompt"]["prompt_token_ids"] if of_vllm else asked["input_ids"]
    sampling = asked if of_vllm else asked["sampling_params"]
    answer = await AsyncTinyLM().chat(
        [{"role": "user", "content": ""}], prompt_ids=ids, logprobs=True, temperature=sampling["temperature"]
    )
    assert answer.tokens is not None
    assert answer.tokens.logprobs is not None
    sampled = list(zip(answer.tokens.logprobs, answer.tokens.ids, strict=True))
    if of_vllm:
        return web.json_response(
            {"logprobs": [[[{str(id_): value}] for value, id_ in sampled]], "finish_reasons": ["stop"]}
        )
    meta = {"output_token_logprobs": [[value, id_, None] for value, id_ in sampled], "finish_reason": {"type": "stop"}}
    return web.json_response({"text": answer.text, "meta_info": meta})


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
async def test_an_environment_takes_server_configs_of_atroposlib(
    kind: str, example: Callable[[str], ModuleType]
) -> None:
    from atroposlib.envs.server_handling.server_manager import APIServerConfig

    app = web.Application()
    app.router.add_post("/generate", generate)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    server = APIServerConfig(
        server_type=kind,
        base_url=url,
        model_name="tinylm",
        tokenizer_name=str(WEIGHTS),
        api_key="x",
        health_check=False,
    )
    config, _ = example("arithmetic").Arithmetic.config_init()
    config.agent_temperature, config.agent_max_tokens = 0.0, None
    task = {"term": "123 * 45", "answer": 5535}
    rows = []
    for servers in ([server], AsyncTinyLM()):
        async with example("arithmetic").Arithmetic(config, servers) as env:
            tried = await env.play(task)
            assert (tried.score, tried.result.error) == (1.0, None)
            rows.append(tried.result.trajectory_data)
    assert rows[0] == rows[1], "the very tokens and log-probabilities of the model itself"
    await runner.cleanup()


def test_atroposlibs_command_line_takes_our_settings_and_writes_groups(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from arithmetic import Arithmetic\n"
        "from lagentlike.envs.atropos import over_atropos\n"
        "from lagentlike.llms import AsyncTinyLM\n"
        "over_atropos(Arithmetic, AsyncTinyLM()).cli()\n"
    )
    examples = Path(__file__).resolve().parents[2] / "examples" / "envs"
    out = tmp_path / "groups.jsonl"
    settings = {"data_path_to_save_groups": out, "use_wandb": False, "total_steps": 1, "group_size": 2}
    flags = [word for name, value in settings.items() for word in (f"--env.{name}", str(value))]
    finished = subprocess.run(
        [sys.executable, "-c", program, str(examples), "process", *flags, "--env.agent_max_steps", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    [group] = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert ScoredGroup.read(group).rows == 2
    assert out.with_suffix(".html").exists()
