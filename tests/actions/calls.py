"""Call a tool of either colour as an executor does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from lagentlike.actions import ActionExecutor, AsyncActionExecutor
from lagentlike.actions.base import BaseAction
from lagentlike.schema import ActionReturn, AgentMessage


def call(tool: BaseAction, api: str = "", session_id: Any = 0, **arguments: Any) -> ActionReturn:
    """What a call returns; of a toolkit, of its tool `api`."""
    name = f"{tool.name}.{api}" if api else tool.name
    message = AgentMessage(content={"name": name, "parameters": arguments})
    if any(found.is_async for found in tool.apis().values()):
        return asyncio.run(AsyncActionExecutor([tool])(message, session_id=session_id)).content  # type: ignore[no-any-return]
    return ActionExecutor([tool])(message, session_id=session_id).content  # type: ignore[no-any-return]


def value(tool: BaseAction, api: str, session_id: Any = 0, **arguments: Any) -> Any:
    """What a call that succeeds returns, as a value."""
    returned = call(tool, api, session_id, **arguments)
    assert returned.errmsg is None, returned.errmsg
    return json.loads(returned.text)
