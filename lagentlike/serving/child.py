"""The process that `HTTPAgentServer` starts: it reads its order from standard input, and ends when that does."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from .agent_server import AgentServer

__all__ = ["main"]


def main() -> int:
    """Serve the agent of the order; tells the port, or why not, in one line."""
    order = json.loads(sys.stdin.buffer.readline())
    told = os.dup(1)
    os.dup2(2, 1)  # what agents print goes to standard error
    sys.path[:] = order["path"]
    with os.fdopen(told, "w") as answer:
        try:
            server = AgentServer(order["agent"], **order["server"])
        except Exception as error:  # noqa: BLE001  # whoever started this raises it
            answer.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
            return 1
        return asyncio.run(_serve(server, answer))


async def _serve(server: AgentServer, answer: Any) -> int:
    try:
        await server.start()
    except Exception as error:  # noqa: BLE001  # whoever started this raises it
        answer.write(json.dumps({"error": str(error)}) + "\n")
        return 1
    answer.write(json.dumps({"port": server.port}) + "\n")
    answer.flush()
    over = asyncio.Event()
    reader = asyncio.get_running_loop()
    reader.add_reader(sys.stdin.fileno(), over.set)  # nothing more is ever sent: it is the end
    await server.wait_for_signal(over)
    reader.remove_reader(sys.stdin.fileno())
    await server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
