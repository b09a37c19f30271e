from typing import Union
from lagentlike.agents import Agent
from lagentlike.llms import GPTAPI
from lagentlike.prompts.parsers import ToolParser
from lagentlike.schema import AgentMessage

llm = GPTAPI(
    model_type="Qwen2.5-32B-Instruct",
    key="YOUR_KEY",
    api_base="http://127.0.0.1:8000/v1/chat/completions",
)

class Formatting(Agent):
    def forward(self, *message: AgentMessage, session_id=0, **kwargs) -> Union[AgentMessage, str]:
        formatted_messages = self.aggregator.aggregate(
            self.memory.get(session_id),
            self.name,
            self.output_format,
            self.template
        )
        llm_response = self.llm.chat(formatted_messages, **kwargs)
        if self.output_format:
            formatted_message = self.output_format.parse_response(llm_response)
            return AgentMessage(
                sender=self.name,
                content=llm_response,
                formatted=formatted_message
            )
        return llm_response

system_prompt = "逐步分析并编写 python 代码解决以下问题。"
parser = ToolParser(tool_type="code interpreter", begin="```python\n", end="\n```\n")
llm.gen_params["stop_words"].append('\n```\n')
agent = Formatting(llm, system_prompt, output_format=parser)

user_msg = AgentMessage(
    sender="user",
    content='Marie is thinking of a multiple of 63, while Jay is thinking of a factor of 63. '
    'They happen to be thinking of the same number. There are two possibilities for the number that each '
    'of them is thinking of, one positive and one negative. Find the product of these two numbers.'
)
bot_msg = agent(user_msg)
print(bot_msg.model_dump_json(indent=4))
