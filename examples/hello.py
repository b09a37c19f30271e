"""Ten lines: an agent with a tool, on the model that the package carries."""

from lagentlike import ReAct, TinyLM, tool


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two whole numbers."""
    return a * b


agent = ReAct(TinyLM(), actions=[multiply])
print(agent("What is 12 * 34?").content)
print([message["sender"] for message in agent.state_dict()["agent.memory"]])
