import asyncio
import os
from lagentlike.llms import AsyncGPTAPI
from lagentlike.agents import AsyncAgent
from lagentlike.hooks import Hook
from lagentlike.schema import AgentMessage

os.environ['OPENAI_API_KEY'] = 'YOU_API_KEY'

class PrefixedMessageHook(Hook):
    def __init__(self, prefix: str, senders: list = None):
        self.prefix = prefix
        self.senders = senders or []

    def before_agent(self, agent, messages, session_id):
        for message in messages:
            if message.sender in self.senders:
                message.content = self.prefix + message.content

class AsyncBlogger(AsyncAgent):
    def __init__(self, model_path, writer_prompt, critic_prompt, critic_prefix='', max_turn=3):
        super().__init__()
        llm = AsyncGPTAPI(
            model_type=model_path, retry=5, max_new_tokens=2048,
            api_base="http://127.0.0.1:8000/v1/chat/completions",
        )
        self.writer = AsyncAgent(llm, writer_prompt, name="writer")
        self.critic = AsyncAgent(
            llm, critic_prompt, name="critic", hooks=[PrefixedMessageHook(critic_prefix, ['writer'])]
        )
        self.max_turn = max_turn

    async def forward(self, message: AgentMessage, session_id=0):
        for _ in range(self.max_turn):
            message = await self.writer(message, session_id=session_id)
            message = await self.critic(message, session_id=session_id)
        return await self.writer(message, session_id=session_id)

blogger = AsyncBlogger(
    'gpt-4o-2024-05-13',
    writer_prompt="You are an writing assistant tasked to write engaging blogpost. You try to generate the best possible for the user's request."
    "If the user provides critique, then respond with a revised version of your previous attempts",
    critic_prompt="Generate critique and recommendations on the writing. Provide detailed recommendations, including requests for length, depth, style, etc...",
    critic_prefix='Reflect and provide critique on the following writing. \n\n'
)

user_prompt = (
    "Write an enagaging blogpost on the recent updates in {topic}. "
    "The blogpost should be engaging and understandable for general audience. "
    "Should have more than 3 paragraphes but no longer than 1000 words."
)

bot_msgs = asyncio.get_event_loop().run_until_complete(
    asyncio.gather(
        *[
            blogger(AgentMessage(sender="user", content=user_prompt.format(topic=topic)), session_id=i)
            for i, topic in enumerate(["AI", "Biotechnology", "New Energy", "Video Games", "Pop Music"])
        ]
    )
)

print(bot_msgs[0].content)
print('-' * 120)
for msg in blogger.state_dict(session_id=0)['writer.memory']:
    print('*' * 80)
    print(f'{msg["sender"]}:\n\n{msg["content"]}')
print('-' * 120)
for msg in blogger.state_dict(session_id=0)['critic.memory']:
    print('*' * 80)
    print(f'{msg["sender"]}:\n\n{msg["content"]}')
