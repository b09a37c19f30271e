from typing import List, Union
from lagentlike.agents import Agent
from lagentlike.llms import GPTAPI
from lagentlike.memory import Memory
from lagentlike.prompts import StrParser
from lagentlike.agents.aggregator import DefaultAggregator
from lagentlike.schema import AgentMessage

llm = GPTAPI(
    model_type="Qwen2.5-32B-Instruct",
    key="YOUR_KEY",
    api_base="http://127.0.0.1:8000/v1/chat/completions",
)

class FewshotAggregator(DefaultAggregator):
    def __init__(self, few_shot: List[dict] = None):
        self.few_shot = few_shot or []

    def aggregate(self,
    messages: Memory, name: str, parser: StrParser = None, system_instruction: Union[str, dict, List[dict]] = None
    ) -> List[dict]:
        _message = []
        if system_instruction:
            _message.extend(self.aggregate_system_instruction(system_instruction))
        _message.extend(self.few_shot)
        messages = messages.get_memory()
        for message in messages:
            if message.sender == name:
                _message.append(dict(role="assistant", content=str(message.content)))
            else:
                user_message = message.content
                if len(_message) > 0 and _message[-1]['role'] == 'user':
                    _message[-1]['content'] += user_message
                else:
                    _message.append(dict(role='user', content=user_message))
        return _message

agent = Agent(
    llm,
    aggregator=FewshotAggregator(
        [
            {"role": "user", "content": "今天天气"},
            {"role": "assistant", "content": "【晴】"},
        ]
    )
)

user_msg = AgentMessage(sender='user', content='昨天天气')
bot_msg = agent(user_msg)
print(bot_msg)
