"""Tests of agents: a scripted model says what it is told and remembers what it was asked."""

from lagentlike import Agent, ScriptedLLM
from lagentlike.llms import forbid_real_requests

with forbid_real_requests():
    llm = ScriptedLLM(["Hello, Ann!", lambda messages, params: f"You said {len(messages)} things."])
    agent = Agent(llm, "Be friendly.")
    print(agent("I am Ann.").content)
    print(agent("And?").content)
    llm.assert_exhausted()
    print(llm.requests[0].messages)
