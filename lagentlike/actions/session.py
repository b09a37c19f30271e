"""What a tool holds for a session and cannot be saved: kernels, shells, open pages."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from ..memory.state import SessionId, SessionState

__all__ = ["Unsaved"]


class Unsaved(SessionState):
    """State of a session that lives in a process or a connection: resetting the session ends it, saving leaves it out.

    A session that is loaded or forked begins without it.
    """

    persistent = False

    @abstractmethod
    def session_ids(self) -> list[SessionId]:
        """The sessions that have one."""

    @abstractmethod
    def reset(self, session_id: SessionId) -> None:
        """End the session's."""

    def dump(self, session_id: SessionId) -> Any:
        return None

    def parse(self, value: Any) -> Any:
        return None

    def restore(self, session_id: SessionId, parsed: Any) -> None:
        self.reset(session_id)

    def fork(self, session_id: SessionId, new_session_id: SessionId) -> None:
        """The new session begins without."""
