"""Agents elsewhere: one part of a pipeline runs in a process of its own, and keeps its sessions on the disk."""

import tempfile
from pathlib import Path

from lagentlike import Agent, Sequential, TinyLM
from lagentlike.serving import HTTPAgentServer

CONFIG = {"type": "lagentlike.Agent", "llm": {"type": "lagentlike.TinyLM"}, "name": "far"}

with tempfile.TemporaryDirectory() as folder:
    store = str(Path(folder) / "sessions.db")
    for question in ("My name is Ann.", "What is my name?"):
        with HTTPAgentServer(config=CONFIG, port=0, store=store) as far:  # each time a new process
            pair = Sequential(far, Agent(TinyLM(), name="near"))
            pair(question, session_id="ann")
            print(far.state_dict("ann")["memory"][-1]["content"])
            print({path: len(messages) for path, messages in pair.state_dict("ann").items()})
