"""Sums with a calculator: an RL environment that the embedded model can be trained in.

python examples/envs/arithmetic.py process --groups 4 --out data/sums.jsonl
lagentlike env evaluate examples/envs/arithmetic.py:Arithmetic
"""

import random
import re
from typing import Any

from lagentlike.envs import AgentConfig, AgentEnv, AgentEnvConfig
from lagentlike.tools import calculator, ToolRegistry


class ArithmeticConfig(AgentEnvConfig):
    """Sums of numbers with up to `digits` digits, `tasks` of them, drawn with `seed`."""

    digits: int = 6
    tasks: int = 1000
    seed: int = 0


class Arithmetic(AgentEnv[ArithmeticConfig]):
    """What is 12 * 34? The answer is right or wrong."""

    name = "arithmetic"
    env_config_cls = ArithmeticConfig

    @classmethod
    def config_init(cls) -> tuple[ArithmeticConfig, Any]:
        # A temperature of 1 keeps tries apart, and keeps log-probabilities those of the model. The embedded model knows
        # results as plain text.
        agent = AgentConfig(temperature=1.0, max_tokens=96, max_steps=4, tool_responses="text")
        return ArithmeticConfig(agent=agent, group_size=4), None  # None: the embedded model

    async def setup_agent_env(self) -> None:
        self.random = random.Random(self.config.seed)
        self.left = self.config.tasks

    def build_tools(self) -> ToolRegistry:
        return ToolRegistry([calculator])

    def draw(self, chance: random.Random) -> dict[str, Any]:
        """A task."""
        a, b = (chance.randrange(10**self.config.digits) for _ in range(2))
        sign = chance.choice("+-*")
        return {"term": f"{a} {sign} {b}", "answer": {"+": a + b, "-": a - b, "*": a * b}[sign]}

    async def get_next_item(self) -> dict[str, Any] | None:
        if not self.left:
            return None
        self.left -= 1
        return self.draw(self.random)

    def build_task(self, item: dict[str, Any]) -> str:
        return f"What is {item['term']}?"

    async def score_trajectory(self, item: dict[str, Any], final_response: str) -> float:
        numbers = re.findall(r"-?\d+", final_response.replace(",", ""))
        return float(numbers[-1:] == [str(item["answer"])])

    async def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The share of right answers to forty sums that are drawn with another seed."""
        chance = random.Random(self.config.seed + 1)
        return {"eval/right": await self.mean_score(self.draw(chance) for _ in range(40))}


if __name__ == "__main__":
    Arithmetic.cli()
