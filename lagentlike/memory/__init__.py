"""What a session remembers, and where it is kept."""

from .manager import MemoryManager
from .memory import Memory
from .state import check_session_id, SessionId, SessionState, SessionValue

__all__ = ["Memory", "MemoryManager", "SessionId", "SessionState", "SessionValue", "check_session_id"]
