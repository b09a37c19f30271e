"""A conversation with a trajectory API, as trainers and environments of atroposlib have it."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

GROUP = {
    "tokens": [[1, 2, 3], [1, 2, 4]],
    "masks": [[-100, -100, 3], [-100, -100, 4]],
    "scores": [1.0, 0.0],
    "advantages": None,
    "ref_logprobs": None,
    "messages": [[{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}]],
    "inference_logprobs": [[1.0, 1.0, -0.5], [1.0, 1.0, -0.25]],
    "overrides": [{}, {}],
    "group_overrides": {},
    "env_id": 0,
}
TRAINER = {
    "wandb_group": "group",
    "wandb_project": "project",
    "batch_size": 4,
    "max_token_len": 64,
    "checkpoint_dir": "checkpoints",
    "save_checkpoint_interval": 5,
    "starting_step": 0,
    "num_steps": 10,
}
ENV = {
    "max_token_length": 64,
    "desired_name": "sums",
    "weight": 1.0,
    "group_size": 2,
    "min_batch_allocation": None,
}
CALLS: list[tuple[str, str, Any]] = [
    ("GET", "/", None),
    ("GET", "/info", None),
    ("GET", "/wandb_info", None),
    ("GET", "/status", None),
    ("GET", "/latest_example", None),
    ("GET", "/batch", None),
    ("POST", "/register-env", ENV),
    ("POST", "/register", TRAINER),
    ("GET", "/info", None),
    ("GET", "/wandb_info", None),
    ("POST", "/register-env", ENV),
    ("GET", "/batch", None),
    ("POST", "/register-env", ENV),
    ("POST", "/register-env", ENV),
    ("GET", "/status-env", {"env_id": 0}),
    ("POST", "/scored_data", GROUP),
    ("GET", "/status-env", {"env_id": 0}),
    ("GET", "/batch", None),
    ("POST", "/scored_data_list", [{**GROUP, "scores": [0.5, 0.0], "env_id": 1}]),
    ("GET", "/status-env", {"env_id": 1}),
    ("GET", "/latest_example", None),
    ("GET", "/status", None),
    ("GET", "/batch", None),
    ("GET", "/status", None),
    ("GET", "/batch", None),
    ("POST", "/disconnect-env", {"env_id": 0}),
    ("POST", "/disconnect-env", {"env_id": 7}),
    ("GET", "/status-env", {"env_id": 1}),
    ("GET", "/reset_data", None),
    ("GET", "/status", None),
]


async def talk(url: str) -> list[dict[str, Any]]:
    """What an API answers to all of this, in order; what differs from run to run is left out."""
    heard = []
    async with aiohttp.ClientSession() as session:
        for method, path, body in CALLS:
            async with session.request(method, url + path, json=body) as response:
                text = await response.text()
            answer = json.loads(text) if text.startswith(("{", "[")) else text
            if path == "/register":
                answer = {name: type(value).__name__ for name, value in answer.items()}
            if path == "/disconnect-env":
                answer.pop("error", None)  # in other words
            heard.append({"call": f"{method} {path}", "status": response.status, "answer": answer})
    return heard
