from lagentlike.schema import AgentMessage
from lagentlike.llms import GPTAPI
import time

# 初始化 LLM
llm = GPTAPI(
    model_type="Qwen2.5-32B-Instruct",
    key="YOUR_KEY",
    api_base="http://127.0.0.1:8000/v1/chat/completions",
    top_k=1,
    temperature=1.0,
    stop_words=['<|im_end|>'],
    max_new_tokens=1024,
)

# 你想要的 system_prompt
system_prompt = "你是一个哲学家。"

# 构造用户消息
user_msg = AgentMessage(sender="user", content="人生的意义是什么？")

# 拼接成 OpenAI 接口能吃的消息列表
messages = [
    {"role": "system", "content": system_prompt},
    {"role": "user", "content": user_msg.content}
]

from lagentlike.schema import ModelStatusCode

print("Bot: ", end="", flush=True)
for status, chunk, _ in llm.stream_chat(messages):
    if status == ModelStatusCode.STREAM_ING:
        print(chunk, end="", flush=True)
        time.sleep(0.01)
    elif status == ModelStatusCode.END:
        print()
