"""What an executor answers when there is no call, no such tool, or nothing more to do."""

from __future__ import annotations

from ..schema import ActionReturn, ActionStatusCode, ActionValidCode
from .base import BaseAction

__all__ = ["FinishAction", "InvalidAction", "NoAction"]


class FinishAction(BaseAction):
    """Finish, with the final answer."""

    def run(self, response: str) -> ActionReturn:
        """Give the final answer and finish.

        Args:
            response: the final answer.
        """
        return ActionReturn(
            type=self.name, result=[{"type": "text", "content": response}], valid=ActionValidCode.FINISH
        )


class NoAction(BaseAction):
    """Say that a message calls no tool.

    Args:
        err_msg: what is said.
    """

    def __init__(self, err_msg: str = "there is no tool call here: call a tool by its name with its arguments") -> None:
        super().__init__()
        self.err_msg = err_msg

    def run(self, err_msg: str | None = None) -> ActionReturn:
        """Say that a message calls no tool.

        Args:
            err_msg: what is said instead.
        """
        return ActionReturn(
            type=self.name,
            errmsg=err_msg or self.err_msg,
            state=ActionStatusCode.API_ERROR,
            valid=ActionValidCode.ABSENT,
        )


class InvalidAction(BaseAction):
    """Say that there is no such tool.

    Args:
        err_msg: what is said before the names of the tools there are.
    """

    def __init__(self, err_msg: str = "there is no such tool") -> None:
        super().__init__()
        self.err_msg = err_msg

    def run(self, err_msg: str | None = None) -> ActionReturn:
        """Say that there is no such tool.

        Args:
            err_msg: what is said instead.
        """
        return ActionReturn(
            type=self.name,
            errmsg=err_msg or self.err_msg,
            state=ActionStatusCode.API_ERROR,
            valid=ActionValidCode.INVALID,
        )
