"""Find what was said in sessions that a store keeps."""

from __future__ import annotations

from ..concurrency import run_in_background
from ..errors import InvalidArgument, ToolError
from ..memory import SessionId, SessionStore
from .base import BaseAction, tool_api

__all__ = ["SearchSessions"]


class SearchSessions(BaseAction):
    """A search in past sessions, for a model.

    A model sees what anybody said to it in any session of the store. Where sessions belong to different people, as a
    server's do, `by_owner` lets it see only those of whose session it runs in.

    Args:
        store: where the sessions are kept.
        by_owner: only sessions whose ids are tuples that begin like the present one's; a session that is no such tuple
            finds nothing.
        name: its name.
    """

    def __init__(self, store: SessionStore, by_owner: bool = False, name: str | None = "search_sessions") -> None:
        super().__init__(None, name)
        if not isinstance(store, SessionStore):
            raise InvalidArgument("store", store, "give a store, such as SQLiteStore('sessions.db')")
        self.store = store
        self.by_owner = by_owner

    @tool_api
    def run(self, query: str, limit: int = 5, session_id: SessionId = 0) -> str:
        """Search earlier conversations for messages that hold all the words.

        Args:
            query: The words.
            limit: Most messages, 1 to 20.
        """
        if not 1 <= limit <= 20:
            raise ToolError("limit must be 1 to 20")
        owner = None
        if self.by_owner:
            if not isinstance(session_id, tuple):
                raise ToolError("this session belongs to nobody, so there are no others of its owner")
            owner = session_id[0]
        found = run_in_background(self.store.search(query, limit, owner))
        lines = [f"[session {one.session_id}, message {one.position}] {one.sender}: {one.snippet}" for one in found]
        return "\n".join(lines) or "nothing was found"

    def extra_repr(self) -> str:
        return repr(self.store)
