"""What keeping sessions costs: turns a second in each store, and what a turn costs late in a session.

`python -m benchmarks.stores [--turns 1000] [--only sqlite postgres redis]` starts servers of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lagentlike.agents import AsyncAgent
from lagentlike.memory import SessionId, SessionStore
from lagentlike.schema import AgentMessage
from tests.memory.servers import postgres_server, redis_server
from tests.memory.talker import open_store

__all__ = ["main", "measure"]

SESSIONS = 32
WINDOW = 50  # turns that a figure is the median of


class Answering(AsyncAgent):
    """Answers without a model, which would cost more the longer the session is."""

    async def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> str:
        return "yes, " * 20


async def measure(store: SessionStore | None, turns: int) -> dict[str, float]:
    """Turns a second with many sessions at once; milliseconds of the first and of the last turns of one session."""
    agent = Answering(name="echo")
    if store is not None:
        agent.keep(store)
    await agent("warm up", session_id="warm")
    took = []
    for number in range(turns):
        begin = time.perf_counter()
        await agent(f"turn {number} " * 10)
        took.append(1000 * (time.perf_counter() - begin))

    async def talk(session: str) -> None:
        for number in range(turns // SESSIONS):
            await agent(f"turn {number} " * 10, session_id=session)

    begin = time.perf_counter()
    await asyncio.gather(*(talk(f"s{number}") for number in range(SESSIONS)))
    rate = (turns // SESSIONS * SESSIONS) / (time.perf_counter() - begin)
    return {
        "turns_a_second": round(rate),
        "first_turns_ms": round(statistics.median(took[:WINDOW]), 2),
        "last_turns_ms": round(statistics.median(took[-WINDOW:]), 2),
    }


def main() -> None:
    """Measure each store that was asked for, and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--only", nargs="*", default=["none", "sqlite", "postgres", "redis"])
    options = parser.parse_args()
    for kind in options.only:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            address = str(Path(folder) / "sessions.db")
            if kind in ("postgres", "redis"):
                address = stack.enter_context(postgres_server() if kind == "postgres" else redis_server())
            store = None if kind == "none" else open_store(kind, address)
            figures = asyncio.run(measure(store, options.turns))
            if store is not None:
                store.blocking.close()
        sys.stdout.write(f"{kind:9} {figures}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
