"""State: what a tree of agents remembers is plain data, saved and loaded whole."""

import tempfile
from pathlib import Path

from lagentlike import Agent, Sequential, TinyLM


def make() -> Sequential:
    """Two agents in a row."""
    return Sequential(("first", Agent(TinyLM(), name="first")), ("second", Agent(TinyLM(), name="second")))


pair = make()
pair("Hello", session_id=0)
for key, messages in pair.state_dict(session_id=0).items():
    print(key, [message["sender"] for message in messages])

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "state.json"
    pair.save(path)  # every session, whole or not at all
    twin = make()
    print(twin.load(path))
print(twin.state_dict() == pair.state_dict())

missing, unexpected = Agent(TinyLM()).load_state_dict(pair.state_dict(), strict=False)
print(missing, unexpected)
