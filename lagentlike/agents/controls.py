"""Stop a run that is under way, or say something to it, from another thread or task."""

from __future__ import annotations

from collections import deque

from ..concurrency import Stop
from ..memory import SessionId

__all__ = ["Control", "Controls"]


class Control(Stop):
    """What others want of one run."""

    __slots__ = ("words",)

    def __init__(self) -> None:
        super().__init__()
        self.words: deque[str] = deque()

    def spoken(self) -> list[str]:
        """What was said to the run since this was last asked."""
        said = []
        while self.words:
            said.append(self.words.popleft())
        return said


class Controls:
    """The runs of an agent that are under way, by session. Each method is one step between threads."""

    def __init__(self) -> None:
        self._running: dict[SessionId, Control] = {}

    def begin(self, session_id: SessionId) -> Control:
        """A run of the session begins."""
        control = self._running[session_id] = Control()
        return control

    def end(self, session_id: SessionId, control: Control) -> None:
        """A run is over."""
        if self._running.get(session_id) is control:
            del self._running[session_id]

    def interrupt(self, session_id: SessionId, reason: str) -> bool:
        """Stop the session's run, and those that began inside it; whether there was one."""
        found = [control for one, control in list(self._running.items()) if _began_in(one, session_id)]
        for control in found:
            control.set(reason)
        return bool(found)

    def steer(self, session_id: SessionId, text: str) -> bool:
        """Say something to the session's run; whether there was one."""
        control = self._running.get(session_id)
        if control is None:
            return False
        control.words.append(text)
        return True


def _began_in(session_id: SessionId, outer: SessionId) -> bool:
    """Whether a session is the outer one, or one that `inner_session` made of it."""
    while session_id != outer:
        if not isinstance(session_id, tuple) or len(session_id) != 3:
            return False
        session_id = session_id[0]
    return True
