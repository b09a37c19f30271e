"""Small programs: the model writes one, and pytest runs it in the sandbox of the try before that is given back.

    python examples/envs/coding.py process --groups 3 --out data/programs.jsonl
    lagentlike env evaluate examples/envs/coding.py:Coding

The embedded model writes such programs in a ```python block, and does not know how to write files; so the environment
puts its program into the sandbox. A larger model would be offered `write_file` and `bash` instead: leave `build_tools`
out.
"""

import re
import sys
from itertools import cycle
from typing import Any

from lagentlike.envs import AgentConfig, AgentEnv, AgentEnvConfig, ExecTool
from lagentlike.errors import EnvironmentFailed
from lagentlike.tools import ToolCall, ToolRegistry

TASKS = [
    {"question": "What is the sum of the numbers from 1 to 50?", "prints": "1275"},
    {"question": "What is the factorial of 7?", "prints": "5040"},
    {"question": "What is 2 to the power of 12?", "prints": "4096"},
    {"question": "Reverse the word sandbox.", "prints": "xobdnas"},
]
TEST = """
import subprocess, sys

def test_the_program_prints_the_answer():
    ran = subprocess.run([sys.executable, "solution.py"], capture_output=True, text=True, timeout=10)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == {prints!r}.split()
"""


class Coding(AgentEnv[AgentEnvConfig]):
    """The score is 1 if the program passes its tests, else 0."""

    name = "coding"

    @classmethod
    def config_init(cls) -> tuple[AgentEnvConfig, Any]:
        agent = AgentConfig(temperature=0.8, max_tokens=128, system_prompt="Solve the problem with Python.")
        return AgentEnvConfig(agent=agent, group_size=2), None

    async def setup_agent_env(self) -> None:
        self.tasks = cycle(TASKS)

    def build_tools(self) -> ToolRegistry:
        return ToolRegistry()

    async def get_next_item(self) -> dict[str, str]:
        return next(self.tasks)

    def build_task(self, item: dict[str, str]) -> str:
        return item["question"]

    async def setup_trajectory_workspace(
        self, item: dict[str, str], *, trajectory_id: str, exec_tool: ExecTool
    ) -> dict[str, Any]:
        test = {"path": "test_solution.py", "content": TEST.format(prints=item["prints"])}
        written = await exec_tool(ToolCall("write_file", test))
        if not written.success:
            raise EnvironmentFailed(written.error)  # then the try is worth nothing, rather than 0
        return {}

    async def score_trajectory(self, item: dict[str, str], final_response: str) -> float:
        raise NotImplementedError("what a program is worth is seen in the sandbox")

    async def verify_and_score_trajectory(
        self, item: dict[str, str], final_response: str, *, exec_tool: ExecTool, **more: Any
    ) -> tuple[float, dict[str, Any]]:
        block = re.search(r"```python\n(.*?)(?:\n```|\Z)", final_response, re.DOTALL)
        if block is None:
            return 0.0, {"why": "there is no program in the answer"}
        await exec_tool(ToolCall("write_file", {"path": "solution.py", "content": block[1] + "\n"}))
        command = f"{sys.executable} -m pytest -q -p no:cacheprovider test_solution.py"
        ran = await exec_tool(ToolCall("bash", {"command": command}), timeout_s=60)
        if ran.metadata.get("exit_code") not in (0, 1):  # pytest's own: all passed, some failed
            raise EnvironmentFailed(f"pytest did not run: {ran.output[-500:]}")
        return float(ran.success), {"pytest": ran.output[-500:]}

    async def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The share of the tasks whose program passes."""
        return {"eval/passed": await self.mean_score(TASKS)}


if __name__ == "__main__":
    Coding.cli()
