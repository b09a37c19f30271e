from typing import Dict, List
from lagentlike.agents import Agent
from lagentlike.schema import AgentMessage
from lagentlike.llms import GPTAPI

llm = GPTAPI(
    model_type="Qwen2.5-32B-Instruct",
    key="YOUR_KEY",
    api_base="http://127.0.0.1:8000/v1/chat/completions",
    top_k=1,
    temperature=1.0,
    stop_words=['<|im_end|>'],
    max_new_tokens=1024,
)

system_prompt = "你的回答只能从“典”，“孝”，“急”三个字中选一个。"
agent = Agent(llm, system_prompt)

user_msg = AgentMessage(sender="user", content="今天的天气情况怎么样")
bot_msg = agent(user_msg)
print(bot_msg)
