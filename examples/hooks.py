"""Hooks watch or rewrite messages around a call; a handle takes them off again."""

from typing import Any

from lagentlike import Agent, AgentMessage, Hook, TinyLM


class Politeness(Hook):
    """Puts a word before what the user says."""

    def before_agent(self, agent: Any, messages: tuple[AgentMessage, ...], session_id: Any) -> None:
        for message in messages:
            message.content = f"Hello! {message.content}"


def shout(agent: Any, messages: Any, reply: AgentMessage) -> AgentMessage:
    """The reply in capitals."""
    return reply.model_copy(update={"content": reply.content.upper()})


agent = Agent(TinyLM(), hooks=[Politeness()])
message = AgentMessage(content="Who are you?")

with agent.register_forward_hook(shout):  # as in torch; the handle is a context manager as well
    print(agent(message).content)
print(agent(message).content)
print(message.content)  # the sender's copy is not touched
print([remembered.content for remembered in agent.memory.get(0)] if agent.memory else [])
