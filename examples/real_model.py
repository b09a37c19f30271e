"""A real model in one line: any server that speaks OpenAI's chat completions.

    lagentlike serve-model &                                        # or vLLM, LMDeploy, Ollama, OpenAI …
    python examples/real_model.py tinylm http://127.0.0.1:8000/v1

The key, where the server wants one, is OPENAI_API_KEY of the environment.
"""

import sys

from lagentlike import GPTAPI, ReAct
from lagentlike.actions import calculator

if len(sys.argv) != 3:
    sys.exit(__doc__)
model, api_base = sys.argv[1:]
llm = GPTAPI(model, api_base=api_base, temperature=0)

agent = ReAct(llm, actions=[calculator])
print(agent("What is the result of 123 * 456?").content)
print(llm.usage)
