"""What the embedded model is asked in tests, and a tool that it may have for it."""

from __future__ import annotations

from typing import Any

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
ONE_PLUS_ONE: list[Any] = [{"role": "user", "content": "What is the result of 1 + 1?"}]
CALCULATOR: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Evaluate an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "The expression to evaluate."}},
            "required": ["expression"],
        },
    },
}
