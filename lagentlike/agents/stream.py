"""What Lagent keeps in `agents.stream`: the InternLM agents and the description of tools for a prompt."""

from .internlm import AgentForInternLM, AsyncAgentForInternLM, AsyncMathCoder, get_plugin_prompt, MathCoder

__all__ = ["AgentForInternLM", "AsyncAgentForInternLM", "AsyncMathCoder", "MathCoder", "get_plugin_prompt"]
