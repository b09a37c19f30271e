import copy
import sys
from lagentlike.actions import ActionExecutor, IPythonInteractive
from lagentlike.agents import Agent
from lagentlike.agents.aggregator import InternLMToolAggregator
from lagentlike.hooks import Hook
from lagentlike.llms import TinyLM
from lagentlike.prompts.parsers import ToolParser
from lagentlike.schema import AgentMessage

class CodeProcessor(Hook):
    def before_action(self, executor, message, session_id):
        message = copy.deepcopy(message)
        message.content = dict(
            name='IPythonInteractive', parameters=dict(command=message.formatted['action'])
        )
        return message

    def after_action(self, executor, message, session_id):
        action_return = message.content
        if isinstance(action_return.result, list):
            message.content = action_return.format_result()
        else:
            message.content = action_return.errmsg
        return message

class Coder(Agent):
    def __init__(self, model_path, system_prompt, max_turn=3):
        llm = TinyLM(
            path=model_path,
            top_k=1,
            temperature=1.0,
            stop_words=['\n```\n', '<|im_end|>'],
            max_new_tokens=1024
        )
        self.agent = Agent(
            llm,
            system_prompt,
            output_format=ToolParser(
                tool_type="code interpreter", begin="```python\n", end="\n```\n"
            ),
            aggregator=InternLMToolAggregator(),
        )
        self.executor = ActionExecutor([IPythonInteractive()], hooks=[CodeProcessor()])
        self.max_turn = max_turn

    def forward(self, message: AgentMessage, session_id=0) -> AgentMessage:
        for _ in range(self.max_turn):
            message = self.agent(message, session_id=session_id)
            if message.formatted['tool_type'] is None:
                return message
            message = self.executor(message, session_id=session_id)
        return message

coder = Coder(None, 'Solve the problem step by step with assistance of Python code')
query = AgentMessage(
    sender='user',
    content=sys.argv[1] if len(sys.argv) > 1 else
    'Find the projection of $\\mathbf{a}$ onto $\\mathbf{b} = '
    '\\begin{pmatrix} 1 \\\\ -3 \\end{pmatrix}$ if $\\mathbf{a} \\cdot \\mathbf{b} = 2.$'
)
answer = coder(query)
print(answer.content)
print('-' * 120)
for msg in coder.state_dict()['agent.memory']:
    print('*' * 80)
    print(f'{msg["sender"]}:\n\n{msg["content"]}')
