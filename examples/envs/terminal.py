"""Work in a terminal: find something out in the sandbox and write it to a file, which is looked at before it goes.

    python examples/envs/terminal.py

The embedded model cannot work in a terminal, so a script plays the model here: one try does it right, the next one does
not. With a model that can, pass it as `server_configs`.
"""

import asyncio
from typing import Any

from lagentlike.envs import AgentEnv, AgentEnvConfig, AgentResult, ExecTool
from lagentlike.llms import AsyncScriptedLLM
from lagentlike.tools import ToolCall

NAMES = ["ann", "bob", "eve", "kim", "lea"]


class CountLines(AgentEnv[AgentEnvConfig]):
    """How many lines has names.txt? The number belongs into answer.txt."""

    name = "count_lines"

    @classmethod
    def config_init(cls) -> tuple[AgentEnvConfig, Any]:
        return AgentEnvConfig(group_size=2, enabled_toolsets=["terminal"], agent_max_steps=6), None

    async def setup_agent_env(self) -> None:
        self.count = 0

    async def get_next_item(self) -> dict[str, int]:
        self.count = self.count % len(NAMES) + 1
        return {"lines": self.count}

    def build_task(self, item: dict[str, int]) -> str:
        return "How many lines has names.txt? Write the number to answer.txt, and nothing else."

    async def setup_trajectory_workspace(
        self, item: dict[str, int], *, trajectory_id: str, exec_tool: ExecTool
    ) -> dict[str, Any]:
        content = "".join(f"{name}\n" for name in NAMES[: item["lines"]])
        written = await exec_tool(ToolCall("write_file", {"path": "names.txt", "content": content}))
        if not written.success:
            raise RuntimeError(written.error)
        return {}

    async def score_trajectory(self, item: dict[str, int], final_response: str) -> float:
        raise NotImplementedError("what was done is seen in the sandbox")

    async def verify_and_score_trajectory(
        self,
        item: dict[str, int],
        final_response: str,
        *,
        trajectory_id: str,
        exec_tool: ExecTool,
        agent_result: AgentResult | None = None,
        workspace_meta: dict[str, Any] | None = None,
    ) -> tuple[float, dict[str, Any]]:
        found = await exec_tool(ToolCall("bash", {"command": "cat answer.txt"}))
        return float(found.success and found.output.strip() == str(item["lines"])), {"answer": found.output}


def player(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
    """A model that works in two steps, and does half of its tries wrong."""
    said = sum(message["role"] == "assistant" for message in messages)
    if said == 0:
        return "<think>I look first.</think>\n" + call("cd . && n=$(wc -l < names.txt)")
    if said == 1:
        player.tries += 1  # type: ignore[attr-defined]
        what = "$n" if player.tries % 2 else "many"  # type: ignore[attr-defined]
        return call(f"echo {what} > answer.txt")  # the shell still knows n
    return "It is in answer.txt."


player.tries = 0  # type: ignore[attr-defined]


def call(command: str) -> str:
    """A call of the terminal, as a model writes it."""
    return f'<tool_call>{{"name": "terminal_stateful", "arguments": {{"command": "{command}"}}}}</tool_call>'


async def main() -> None:
    """Play one group and show it."""
    async with CountLines(server_configs=AsyncScriptedLLM(player)) as env:
        for _ in range(2):
            item = await env.get_next_item()
            group, _ = await env.collect_trajectories(item)
            print(item, sorted(group["scores"]) if isinstance(group, dict) else env.failures)
        tried = await env.play({"lines": 3})
    for message in tried.messages[1:]:
        print(f"{message['role']:>10}: {message['content']}")


if __name__ == "__main__":
    asyncio.run(main())
