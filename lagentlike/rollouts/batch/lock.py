"""One runner for a run: a lock among the processes of this machine, a lease among machines that share the folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any, Self

from ...errors import LagentlikeError

__all__ = ["RunBusy", "RunLock"]

LEASE_SECONDS = 60.0
"""How long a runner that is not heard of is believed to be alive."""

RENEW_SECONDS = 10.0


class RunBusy(LagentlikeError):
    """Another runner works on this run."""


class RunLock:
    """Holds a run's folder for one runner; `renew` is to be called now and then.

    The lock ends with its process, however that ends. The lease is for file systems on which locks of other machines
    are not seen; the lease of a runner on this very machine counts for nothing once its lock is free.

    Raises:
        RunBusy: another runner has it.
    """

    def __init__(self, folder: Path) -> None:
        self._lease = folder / "lease.json"
        self._token = secrets.token_hex(8)
        self._renewed = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._take(folder)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _take(self, folder: Path) -> None:
        holder = self._holder()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
            raise RunBusy(f"{who} works on {str(folder)!r}: wait for it, or give another run_name") from None
        if holder and holder["host"] != socket.gethostname() and holder["until"] > time.time():
            left = holder["until"] - time.time()
            raise RunBusy(
                f"a runner on {holder['host']} works on {str(folder)!r}; if it is gone, its lease ends in {left:.0f} s"
            )
        self.renew()
        self._confirm()

    def renew(self) -> None:
        """Say that this runner is alive, if that was not said for a while.

        Raises:
            RunBusy: another runner took the run over, because this one was silent for too long.
        """
        now = time.time()
        if now - self._renewed < RENEW_SECONDS:
            return
        if self._renewed:
            self._confirm()
        lease = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token, "until": now + LEASE_SECONDS}
        draft = self._lease.with_name(f".lease-{self._token}")
        draft.write_text(json.dumps(lease))
        draft.replace(self._lease)
        self._renewed = now

    def _confirm(self) -> None:
        holder = self._holder()
        if holder.get("token") != self._token:
            raise RunBusy(f"a runner on {holder.get('host', 'another machine')} took this run over")

    def _holder(self) -> dict[str, Any]:
        """What the lease says, if there is one that can be read."""
        try:
            lease = json.loads(self._lease.read_text())
            return {"host": str(lease["host"]), "pid": lease["pid"], "token": lease["token"], "until": lease["until"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def release(self) -> None:
        """Let others have the run."""
        if self._descriptor < 0:
            return
        if self._holder().get("token") == self._token:
            with contextlib.suppress(OSError):
                self._lease.unlink()
        os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
