"""Calling a unit of whatever colour."""

from __future__ import annotations

import asyncio
from typing import Any

from lagentlike.schema import AgentMessage


def parts_of(unit: Any, *message: Any, **options: Any) -> list[AgentMessage]:
    """All messages that a call gives out."""

    async def gather() -> list[AgentMessage]:
        if unit.colour.is_streaming:
            return [part async for part in unit(*message, **options)]
        return [await unit(*message, **options)]

    if unit.colour.is_async:
        return asyncio.run(gather())
    return list(unit(*message, **options)) if unit.colour.is_streaming else [unit(*message, **options)]
