"""Tracebacks of code that called itself without end, which IPython takes seconds to write."""

from __future__ import annotations

from typing import Any

__all__ = ["show_ends"]


def show_ends(shell: Any, kind: Any, error: Any, trace: Any, tb_offset: Any = None) -> None:
    """Show the first and the last frames of a traceback: for `set_custom_exc` of an IPython shell.

    A kernel gets the source of this function; it stands alone.
    """
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    if len(frames) > 20:
        frames[9].tb_next = frames[-10]
    shell.showtraceback((kind, error, frames[0]), tb_offset=tb_offset)
