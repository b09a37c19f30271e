"""Agents in a row: each gets the reply of the one before, as layers do in nn.Sequential."""

from lagentlike import Agent, AgentMessage, Sequential, TinyLM


class Shorten(Agent):
    """Any code can be a step: this one keeps the first sentence."""

    def forward(self, message: AgentMessage, session_id: int = 0) -> str:
        return str(message.content).partition(".")[0] + "."


line = Sequential(
    ("writer", Agent(TinyLM(), "You are a writer. Write an engaging blogpost on the user's topic.", name="writer")),
    ("shorten", Shorten()),
)
print(line)
print(line("Write an engaging blogpost on the recent updates in Robotics.").content)
print(line("Write an engaging blogpost on the recent updates in Robotics.", session_id=1, exit_at=0).sender)
