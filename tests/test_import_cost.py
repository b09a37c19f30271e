"""What an import must not drag in; the CPU time it takes is measured in `benchmarks/`."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENGINES = {
    "IPython",
    "anthropic",
    "fastapi",
    "jupyter_client",
    "lmdeploy",
    "matplotlib",
    "mcp",
    "numpy",
    "openai",
    "ray",
    "safetensors",
    "starlette",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
    "uvicorn",
    "vllm",
    "zmq",
}


def _loaded_by(code: str) -> set[str]:
    """Top-level names in `sys.modules` of a fresh interpreter after `code`."""
    program = f"import sys\n{code}\nsys.stdout.write(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.split())


def test_import_lagentlike_is_light() -> None:
    heavy = _loaded_by("import lagentlike") & (ENGINES | {"aiohttp", "asyncio", "griffe", "pydantic"})
    assert not heavy, f"`import lagentlike` loads {sorted(heavy)}"


@pytest.mark.parametrize(
    "code",
    [
        "from lagentlike.agents import AsyncAgent; from lagentlike.llms import AsyncGPTAPI",
        "from lagentlike.agents import Agent; from lagentlike.llms import GPTAPI",
        "from lagentlike import Agent, AsyncAgent",
        "from lagentlike.schema import AgentMessage",
        "import lagentlike.actions",
    ],
)
def test_agents_and_api_models_load_no_engine(code: str) -> None:
    heavy = _loaded_by(code) & ENGINES
    assert not heavy, f"`{code}` loads {sorted(heavy)}"


def test_importing_makes_no_thread_and_no_loop() -> None:
    code = (
        "import threading, asyncio, warnings\n"
        "import lagentlike\n"
        "from lagentlike.agents import AsyncAgent\n"
        "from lagentlike.llms import AsyncGPTAPI\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert asyncio._get_running_loop() is None\n"
    )
    assert "lagentlike" in _loaded_by(code)
