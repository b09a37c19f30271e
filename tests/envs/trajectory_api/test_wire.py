"""Our trajectory API answers word for word what atroposlib's run-api answers, which is recorded here."""

from __future__ import annotations

import json
from pathlib import Path

from lagentlike.envs import TrajectoryServer

from .conversation import talk

RECORDED = Path(__file__).parent / "recorded.json"


async def test_our_server_answers_what_was_recorded_of_atroposlib() -> None:
    async with TrajectoryServer(port=0) as server:
        heard = await talk(server.url)
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert len(heard) == len(recorded)
    for said, expected in zip(heard, recorded, strict=True):
        assert said == expected
