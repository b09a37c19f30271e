"""Budgets: limits on requests, tokens, tool calls and time for everything inside a block."""

from lagentlike import Agent, Budget, TinyLM
from lagentlike.errors import BudgetExceeded

agent = Agent(TinyLM())
with Budget(requests=2, tokens=10_000, seconds=60) as budget:
    try:
        for number in range(1, 10):
            agent("Hello")
            print(f"turn {number}: {budget.used.requests} requests, {budget.used.total_tokens > 0}")
    except BudgetExceeded as error:
        print(error)

print(len(agent.memory.get(0)) if agent.memory else 0)  # the turn that was refused left nothing behind
