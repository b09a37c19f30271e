"""The list of what is to be done, which a model keeps while it works."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from ..errors import ToolError
from ..memory import SessionId
from ..memory.state import SessionValue
from .base import BaseAction, tool_api

__all__ = ["Todo", "TodoItem"]


@dataclass
class TodoItem:
    """Something to be done.

    Attributes:
        id: by which it is changed later.
        content: what.
        status: how far it is.
    """

    id: Annotated[str, Field(min_length=1, max_length=100)]
    content: Annotated[str, Field(min_length=1, max_length=2000)]
    status: Literal["pending", "in_progress", "completed", "cancelled"] = "pending"


_one_at_a_time = threading.Lock()  # of the calls of one message, which run side by side


class Todo(BaseAction):
    """A list of what is to be done, one for each session, saved and forked with it.

    Args:
        name: its name.
    """

    def __init__(self, name: str | None = "todo") -> None:
        super().__init__(None, name)
        self.items: SessionValue[list[dict[str, Any]]] = SessionValue(list)

    @tool_api
    def run(
        self,
        todos: Annotated[list[TodoItem], Field(max_length=100)] | None = None,
        merge: bool = False,
        session_id: SessionId = 0,
    ) -> str:
        """Keep a list of what is to be done in work of several steps; without todos, it is shown.

        Have one item in progress at a time, and mark it as completed when it is done.

        Args:
            todos: The items.
            merge: Whether to change and add these items, and keep the others; else they are the whole list.
        """
        if todos is not None:
            ids = [item.id for item in todos]
            if len(set(ids)) < len(ids):
                raise ToolError("two items have the same id")
            with _one_at_a_time:
                kept = {item["id"]: item for item in self.items[session_id]} if merge else {}
                kept.update({item.id: asdict(item) for item in todos})
                if len(kept) > 100:
                    raise ToolError("the list has more than 100 items: leave out what is done")
                self.items[session_id] = list(kept.values())
        items = self.items[session_id]
        left = sum(item["status"] in ("pending", "in_progress") for item in items)
        return json.dumps({"todos": items, "left": left}, ensure_ascii=False)
