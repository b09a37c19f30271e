"""Tools are functions: types and docstring make the schema, errors go back to the model."""

import json
from typing import Annotated, Literal

from pydantic import Field

from lagentlike import ActionExecutor, AgentMessage, tool
from lagentlike.schema import ToolCall


@tool
def convert(
    amount: Annotated[float, Field(gt=0, description="How much.")],
    unit: Literal["km", "kg"],
    digits: int = 2,
) -> str:
    """Convert metric units to imperial ones.

    Args:
        digits: decimal places of the result.
    """
    factor, name = {"km": (0.621371, "miles"), "kg": (2.204623, "pounds")}[unit]
    return f"{round(amount * factor, digits)} {name}"


@tool(timeout=5)
async def remember(note: str, session_id: str) -> str:
    """Keep a note. Tools that ask for `session_id` are given it; models do not see it."""
    return f"{session_id}: {note}"


executor = ActionExecutor([convert, remember])
print(json.dumps(executor.tools()[0]["function"]["parameters"], indent=2))

# What a model asks for in one message runs side by side; each call gets its result, in order.
calls = [
    ToolCall("convert", {"amount": 42.2, "unit": "km"}, id="a"),
    ToolCall("convert", {"amount": -1, "unit": "stone"}, id="b"),
    ToolCall("remember", {"note": "buy milk"}, id="c"),
]
reply = executor(AgentMessage(content="", tool_calls=calls), session_id="ann")
for result in reply.tool_results or ():
    print(result.id, "ok" if result.success else "failed", "-", result.text)

print(convert(1, "kg"))  # called from Python, a tool is the function that it was
