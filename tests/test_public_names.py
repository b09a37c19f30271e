"""The public names, pinned: adding or dropping one is a decision, made here and in the changelog."""

from __future__ import annotations

import importlib

import pytest

# Package or module -> the names it exports on purpose, sorted.
PUBLIC_NAMES: dict[str, tuple[str, ...]] = {
    "lagentlike": (
        "ActionExecutor",
        "Agent",
        "AgentDict",
        "AgentList",
        "AgentMessage",
        "AsyncActionExecutor",
        "AsyncAgent",
        "AsyncGPTAPI",
        "AsyncReAct",
        "AsyncSequential",
        "AsyncStreamingAgent",
        "AsyncStreamingSequential",
        "AsyncTinyLM",
        "BaseAction",
        "Budget",
        "GPTAPI",
        "Hook",
        "Memory",
        "Module",
        "ReAct",
        "ScriptedLLM",
        "Sequential",
        "StreamingAgent",
        "StreamingSequential",
        "TinyLM",
        "tool",
    ),
    "lagentlike.actions": (
        "ActionExecutor",
        "AsyncActionExecutor",
        "AsyncIPythonInterpreter",
        "AsyncWebBrowser",
        "BaseAction",
        "BingSearch",
        "DuckDuckGoSearch",
        "FinishAction",
        "FunctionTool",
        "IPythonInteractive",
        "IPythonInteractiveManager",
        "IPythonInterpreter",
        "InvalidAction",
        "NoAction",
        "PythonInterpreter",
        "WebBrowser",
        "calculator",
        "tool",
        "tool_api",
    ),
    "lagentlike.agents": (
        "Agent",
        "AgentDict",
        "AgentForInternLM",
        "AgentList",
        "AsyncAgent",
        "AsyncAgentForInternLM",
        "AsyncMathCoder",
        "AsyncReAct",
        "AsyncSequential",
        "AsyncStreamingAgent",
        "AsyncStreamingReAct",
        "AsyncStreamingSequential",
        "AsyncStreamingWorkflow",
        "AsyncWorkflow",
        "MathCoder",
        "ReAct",
        "Sequential",
        "StreamingAgent",
        "StreamingReAct",
        "StreamingSequential",
        "StreamingWorkflow",
        "Workflow",
    ),
    "lagentlike.aggregators": (
        "DefaultAggregator",
        "InternLMToolAggregator",
    ),
    "lagentlike.errors": (
        "AuthenticationFailed",
        "BadResponse",
        "BudgetExceeded",
        "ColourError",
        "ConnectFailed",
        "ContextLengthExceeded",
        "EnvironmentFailed",
        "InvalidArgument",
        "KernelDied",
        "LLMError",
        "LagentlikeError",
        "LeaseExpired",
        "MissingExtra",
        "MissingTokens",
        "PoolClosed",
        "PoolTimeout",
        "QuotaExhausted",
        "RateLimited",
        "RealRequestsForbidden",
        "RequestRefused",
        "RequestTimeout",
        "ResponseTooLarge",
        "RewardError",
        "ScriptExhausted",
        "ServerError",
        "SessionBusy",
        "StateError",
        "StreamTruncated",
        "ToolArgumentsError",
        "ToolError",
        "ToolTimeout",
        "shown",
    ),
    "lagentlike.hooks": (
        "ActionPreprocessor",
        "Hook",
        "InternLMActionProcessor",
        "MessageLogger",
        "RemovableHandle",
    ),
    "lagentlike.llms": (
        "AsyncBaseLLM",
        "AsyncGPTAPI",
        "AsyncScriptedLLM",
        "AsyncTinyLM",
        "AsyncVllmModel",
        "BaseLLM",
        "GPTAPI",
        "INTERNLM2_META",
        "ScriptedLLM",
        "TinyLM",
        "VllmModel",
        "forbid_real_requests",
    ),
    "lagentlike.memory": (
        "Memory",
        "MemoryManager",
        "SessionId",
        "SessionState",
        "SessionValue",
        "check_session_id",
    ),
    "lagentlike.prompts": (
        "InterpreterParser",
        "JSONParser",
        "MixedToolParser",
        "PluginParser",
        "PromptTemplate",
        "StrParser",
        "ToolParser",
    ),
    "lagentlike.prompts.parsers": (
        "InterpreterParser",
        "JSONParser",
        "MixedToolParser",
        "PluginParser",
        "StrParser",
        "ToolParser",
    ),
    "lagentlike.schema": (
        "ActionReturn",
        "ActionStatusCode",
        "ActionValidCode",
        "AgentMessage",
        "AgentStatusCode",
        "ChatMessage",
        "Completion",
        "FunctionCall",
        "ModelStatusCode",
        "TokenSpan",
        "ToolCall",
        "ToolResult",
        "ToolStatusCode",
        "Usage",
        "to_plain",
    ),
    "lagentlike.serving": ("ModelServer",),
    "lagentlike.tools": (
        "FunctionTool",
        "ToolCall",
        "ToolResult",
        "ToolSchema",
        "calculator",
        "tool",
    ),
}


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_exports_exactly_the_pinned_names(module: str) -> None:
    exported = importlib.import_module(module).__all__
    assert sorted(exported) == sorted(PUBLIC_NAMES[module])


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_every_exported_name_is_there(module: str) -> None:
    imported = importlib.import_module(module)
    missing = [name for name in imported.__all__ if not hasattr(imported, name)]
    assert not missing, f"{module}.__all__ names what it does not have: {missing}"


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_every_exported_name_shows_in_dir(module: str) -> None:
    imported = importlib.import_module(module)
    assert set(imported.__all__) <= set(dir(imported))
