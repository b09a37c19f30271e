"""A process that talks in a session of a store until it is killed, and says what was acknowledged."""

from __future__ import annotations

import sys

from lagentlike import Agent, ScriptedLLM, Sequential
from lagentlike.memory import PostgresStore, RedisStore, SessionStore, SQLiteStore

__all__ = ["echoing", "open_store"]


def open_store(kind: str, address: str) -> SessionStore:
    """A store, by its kind; the address may end with `#` and a name that keeps tests apart."""
    address, _, room = address.partition("#")
    if kind == "postgres":
        return PostgresStore(address, schema=room or "lagentlike")
    return RedisStore(address, prefix=f"{room}:") if kind == "redis" else SQLiteStore(address)


def echoing() -> Sequential:
    """Two agents in a row that repeat the last thing they were told."""
    units = [Agent(ScriptedLLM(lambda messages, _: messages[-1]["content"]), name=name) for name in ("one", "two")]
    return Sequential(*units)


if __name__ == "__main__":
    agent = echoing()
    agent.keep(open_store(sys.argv[1], sys.argv[2]))
    for number in range(int(sys.argv[3]), 1_000_000):
        agent(f"turn {number}", session_id="talk")
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
