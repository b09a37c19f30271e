"""Sessions: one agent, many conversations, none sees another; a fork goes on from where one is."""

from lagentlike import Agent, TinyLM

agent = Agent(TinyLM())
agent("My name is Ann.", session_id="ann")
agent("My name is Bob.", session_id="bob")
print("ann:", agent("What is my name?", session_id="ann").content)
print("bob:", agent("What is my name?", session_id="bob").content)
print("new:", agent("What is my name?", session_id="new").content)

agent.fork("ann", "ann-2")  # costs the same however long the session is
agent("My name is Eve.", session_id="ann-2")
print("ann-2:", agent("What is my name?", session_id="ann-2").content)
print("ann:", agent("What is my name?", session_id="ann").content)

agent.reset("bob")
print(agent.session_ids())
