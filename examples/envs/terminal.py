"""Small jobs in a terminal, which the embedded model does: count lines, find a name, make a folder, delete a file.

    python examples/envs/terminal.py process --groups 4 --out data/terminal.jsonl
    lagentlike env evaluate examples/envs/terminal.py:Terminal

What an answer is worth is seen in two places: in what it says, and in the try's own sandbox, before that is given back.
"""

import random
from typing import Any

from lagentlike.envs import AgentConfig, AgentEnv, AgentEnvConfig, ExecTool
from lagentlike.errors import EnvironmentFailed
from lagentlike.tools import ToolCall, ToolRegistry

NAMES = "ann bob carl dora eve finn gina hugo iris jack kim lea max nora otto paul rosa sam tina vera".split()


class Terminal(AgentEnv[AgentEnvConfig]):
    """How many lines has kim.txt? Run `tail -n 2 kim.txt`. Make a folder lea. Delete kim.txt."""

    name = "terminal"

    @classmethod
    def config_init(cls) -> tuple[AgentEnvConfig, Any]:
        agent = AgentConfig(temperature=1.0, max_tokens=64, max_steps=3, tool_responses="text")
        return AgentEnvConfig(agent=agent, group_size=4), None  # None: the embedded model

    async def setup_agent_env(self) -> None:
        self.random = random.Random(0)

    def build_tools(self) -> ToolRegistry:
        return ToolRegistry(["bash"])

    def draw(self, chance: random.Random) -> dict[str, Any]:
        """A task: what the file holds, the question, what the answer has to say, and a command that checks the rest."""
        names = chance.sample(NAMES, chance.randint(3, 9))
        file, some = f"{chance.choice(NAMES)}.txt", chance.choice(names)
        question, answer, check = chance.choice(
            [
                (f"How many lines has {file}?", f"{len(names)} {file}", f"test -e {file}"),
                (f"Find {some} in {file}.", some, f"test -e {file}"),
                (f"Run `tail -n 2 {file}`.", "\n".join(names[-2:]), f"test -e {file}"),
                (f"Make a folder {some}.", "", f"test -d {some}"),
                (f"Delete {file}.", "", f"test ! -e {file}"),
            ]
        )
        return {"file": file, "names": names, "question": question, "answer": answer, "check": check}

    async def get_next_item(self) -> dict[str, Any]:
        return self.draw(self.random)

    def build_task(self, item: dict[str, Any]) -> str:
        return str(item["question"])

    async def setup_trajectory_workspace(
        self, item: dict[str, Any], *, trajectory_id: str, exec_tool: ExecTool
    ) -> dict[str, Any]:
        content = "".join(f"{name}\n" for name in item["names"])
        written = await exec_tool(ToolCall("write_file", {"path": item["file"], "content": content}))
        if not written.success:
            raise EnvironmentFailed(written.error)  # then the try is worth nothing, rather than 0
        return {}

    async def score_trajectory(self, item: dict[str, Any], final_response: str) -> float:
        return float(item["answer"] in final_response)

    async def verify_and_score_trajectory(
        self, item: dict[str, Any], final_response: str, *, exec_tool: ExecTool, **more: Any
    ) -> tuple[float, dict[str, Any]]:
        checked = await exec_tool(ToolCall("bash", {"command": item["check"]}))
        return checked.success * await self.score_trajectory(item, final_response), {"check": checked.success}

    async def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The share of twenty other jobs that were done."""
        chance = random.Random(1)
        return {"eval/done": await self.mean_score(self.draw(chance) for _ in range(20))}


if __name__ == "__main__":
    Terminal.cli()
