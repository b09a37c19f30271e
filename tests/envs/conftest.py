"""Environments of the examples, and a small one that tests bend."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lagentlike.envs import AgentEnv, AgentEnvConfig
from lagentlike.llms import AsyncScriptedLLM
from lagentlike.tools import ToolCall, ToolRegistry

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "envs"


@pytest.fixture(scope="session")
def example() -> Callable[[str], ModuleType]:
    """A module of `examples/envs`, by its name."""

    def load(name: str) -> ModuleType:
        known = f"example_env_{name}"
        if known not in sys.modules:
            spec = importlib.util.spec_from_file_location(known, EXAMPLES / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            sys.modules[known] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[known])
        return sys.modules[known]

    return load


def bash(command: str) -> str:
    """A call of `bash`, as a model writes it; `command` has no quotes."""
    return f'<tool_call>{{"name": "bash", "arguments": {{"command": "{command}"}}}}</tool_call>'


class Notes(AgentEnv[AgentEnvConfig]):
    """The agent is to write `done` to note.txt; `item` may say what the environment does wrong."""

    name = "notes"

    def __init__(self, replies: Any, items: list[Any] | None = None, **config: Any) -> None:
        settings = {"tool_pool_mode": "local", "group_size": 2, "agent_max_steps": 3, "include_messages": True}
        super().__init__(AgentEnvConfig(**{**settings, **config}), AsyncScriptedLLM(replies))
        self.items = list(items or [])
        self.seen: list[str] = []

    def build_tools(self) -> ToolRegistry:
        return ToolRegistry(["bash"])

    async def setup_agent_env(self) -> None:
        self.seen.append("setup")

    async def get_next_item(self) -> Any:
        return self.items.pop(0) if self.items else None

    def build_task(self, item: Any) -> str:
        return f"Write done to note.txt ({item})"

    async def setup_trajectory_workspace(self, item: Any, *, trajectory_id: str, exec_tool: Any) -> dict[str, Any]:
        if item == "setup fails":
            raise OSError("no data set")
        left = await exec_tool(ToolCall("bash", {"command": "ls"}))
        assert left.success
        self.seen.append(f"left: {left.output.strip()}")
        return {"id": trajectory_id}

    async def score_trajectory(self, item: Any, final_response: str) -> float:
        if item == "score fails":
            raise ValueError("no parser")
        return float("nan") if item == "score is nan" else 0.5

    async def verify_and_score_trajectory(
        self,
        item: Any,
        final_response: str,
        *,
        trajectory_id: str,
        exec_tool: Any,
        agent_result: Any = None,
        workspace_meta: dict[str, Any] | None = None,
    ) -> tuple[float, dict[str, Any]]:
        assert workspace_meta == {"id": trajectory_id}
        assert agent_result.final_response == final_response
        if item == "metadata is no data":
            return 0.5, {"judge": object()}
        if item is not None and item.startswith("score"):
            return await super().verify_and_score_trajectory(
                item, final_response, trajectory_id=trajectory_id, exec_tool=exec_tool
            )
        found = await exec_tool(ToolCall("read_file", {"path": "note.txt"}))  # which the model is not offered
        return float(found.success and "done" in found.output), {"overrides": {"seen": True}}


Replies = Callable[[list[dict[str, Any]], dict[str, Any]], str]


def writes(*commands: str) -> Replies:
    """A model that runs these commands, one a step, and then says so."""

    def reply(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        step = sum(message["role"] == "assistant" for message in messages)
        return bash(commands[step]) if step < len(commands) else "It is written."

    return reply
