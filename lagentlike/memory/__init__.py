"""What a session remembers, and where it is kept."""

from .memory import Memory
from .manager import MemoryManager
from .state import SessionId, SessionState, SessionValue, check_session_id

__all__ = ["Memory", "MemoryManager", "SessionId", "SessionState", "SessionValue", "check_session_id"]
