"""The page from a notebook or a script."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...concurrency import LoopThread
from ...memory import SessionStore
from ...module import Module
from .server import UIServer

__all__ = ["UI", "launch", "open_in_browser"]

_loop = LoopThread("lagentlike-ui")


class UI:
    """A page that is served, in a thread of its own, until it is closed or the process ends."""

    def __init__(self, server: UIServer) -> None:
        self._server = server
        self._closed = threading.Event()
        _loop.submit(server.start()).result()

    @property
    def url(self) -> str:
        """Where the page is; whoever has this address can use the agent."""
        return self._server.page_url

    def open(self) -> None:
        """Open the page in a browser, where there are windows."""
        open_in_browser(self.url)

    def close(self) -> None:
        """Serve no longer; twice is no error."""
        if not self._closed.is_set():
            self._closed.set()
            _loop.submit(self._server.stop()).result()

    def wait(self) -> None:
        """Wait until it is closed, or interrupted by Ctrl-C; for scripts, which would end otherwise."""
        try:
            self._closed.wait()
        except KeyboardInterrupt:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"UI({self._server.address!r}{', closed' if self._closed.is_set() else ''})"


def open_in_browser(url: str) -> None:
    """Open an address in a browser, and do not wait for it; not in one that would take the terminal."""
    if not sys.platform.startswith("linux") or any(map(os.environ.get, ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))):
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True, name="lagentlike-browser").start()


def launch(
    agent: Module | Mapping[str, Any] | str,
    *,
    port: int = 0,
    token: str | None = None,
    store: SessionStore | str | Path | None = None,
    open_browser: bool = True,
) -> UI:
    """Serve a page on which to watch an agent and to talk to it, and open it in a browser.

    Args:
        agent: the agent, of any colour. What this program does with it is seen, too.
        port: port to listen on, on this machine alone; 0 takes a free one.
        token: what the page must send; made up by default.
        store: where the page's sessions are kept, as for `AgentServer`.
        open_browser: False only to serve it.

    Raises:
        InvalidArgument: `agent` is none, or the port is taken.

    >>> from lagentlike import Agent, ScriptedLLM
    >>> with launch(Agent(ScriptedLLM(["Hello!"])), open_browser=False) as ui:
    ...     ui.url.partition("#")[2][:6]
    'token='
    """
    ui = UI(UIServer(agent, port=port, token=token, store=store))
    if open_browser:
        ui.open()
    return ui
