"""The command line, called in this process; what needs one of its own is in test_terminal.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lagentlike.concurrency import run_in_background
from lagentlike.llms import AsyncTinyLM
from lagentlike.serving import ModelServer

from .conftest import Outcome

AGENTS = '''
from lagentlike import Agent, AsyncAgent, AsyncStreamingAgent, ReAct, ScriptedLLM, StreamingAgent, tool
from lagentlike.llms import AsyncScriptedLLM
from lagentlike.schema import ToolCall


def echo(messages, params):
    return f"{len(messages)}: {messages[-1]['content']}"


@tool
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


agent = blocking = Agent(ScriptedLLM(echo))
streaming = StreamingAgent(ScriptedLLM(echo, chunk_size=2))
react = ReAct(ScriptedLLM([ToolCall("double", {"number": 4}), "It is 8."]), actions=[double])


class Async(AsyncAgent):
    def __init__(self):
        super().__init__(AsyncScriptedLLM(echo))


def make():
    return AsyncStreamingAgent(AsyncScriptedLLM(echo, chunk_size=2))


class Broken(Agent):
    def forward(self, message, session_id=0):
        return 1 / 0


def picky(argument):
    return None


number = 3
'''


# Help and errors


def test_help_shows_every_command_with_examples(lagentlike: Callable[..., Outcome]) -> None:
    code, out, _ = lagentlike("--help")
    assert code == 0
    assert all(name in out for name in ("demo", "chat", "run", "summary", "serve-model", "examples:"))


@pytest.mark.parametrize("command", ["demo", "chat", "run", "summary", "serve", "serve-model"])
def test_each_command_teaches_by_example(lagentlike: Callable[..., Outcome], command: str) -> None:
    code, out, _ = lagentlike(command, "--help")
    assert code == 0
    assert "examples:" in out
    assert f"lagentlike {command}" in out


def test_a_description_is_as_wide_as_the_terminal_and_its_tables_stay(
    lagentlike: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = lagentlike("train", "--help").out
    description = out[out.index("sft learns") : out.index("positional arguments")].splitlines()
    assert "  ppo        compared with all chains of the step, with a clipped ratio" in description
    assert max(len(line) for line in description if not line.startswith(" ")) <= 60


def test_version(lagentlike: Callable[..., Outcome]) -> None:
    assert lagentlike("--version").out.startswith("lagentlike ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "COMMAND"),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
        (("chat", "--frobnicate"), "--frobnicate"),
        (("chat", "--frobnicate"), "(see lagentlike chat --help)"),
        (("chat", "--strore", "talks.db"), "did you mean --store?"),
        (("chat", "words"), "words"),
        (("run", "my_agents:agent", "--frobnicate", "hi"), "--frobnicate"),
        (("chat", "--temperature", "hot"), "--temperature"),
        (("run",), "required: agent ("),
        (("run", "nowhere:agent", "hi"), "no module 'nowhere'"),
        (("run", "nowhere.py:agent", "hi"), "no file 'nowhere.py'"),
        (("run", "my_agents.py:nobody", "hi"), "its agents are Async, Broken, agent, blocking, react, streaming"),
        (("run", "my_agents.py:number", "hi"), "is no agent but of type int"),
        (("run", "my_agents.py:picky", "hi"), "cannot be made without arguments"),
        (("run", ":agent", "hi"), "the module's name is missing"),
        (("run", "my_agents:agent"), "the message is empty"),
        (("run", "my_agents:blocking", "--stream", "hi"), "does not stream"),
        (("chat", "--api-base", "http://127.0.0.1:1"), "--api-base needs --model"),
        (("chat", "--key", "k"), "--key goes with --model"),
        (("chat", "--tool", "hammer"), "calculator, python"),
        (("chat", "--tool", "calculator", "--no-tools"), "contradict"),
    ],
)
def test_a_command_that_is_not_understood_is_answered_in_one_line(
    lagentlike: Callable[..., Outcome], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = lagentlike(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("lagentlike: error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "my_agents:Broken", "hi"), "ZeroDivisionError: division by zero"),
        (("serve-model", "--host", "0.0.0.0"), "set a token as well"),
        (("serve-model", "--path", "nowhere"), "path='nowhere'"),
        (("summary", "my_agents:agent", "--state", "nowhere.json"), "nowhere.json"),
        (("chat", "--max-new-tokens", "0"), "max_new_tokens=0"),
    ],
)
def test_what_fails_is_told_in_one_line(
    lagentlike: Callable[..., Outcome], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = lagentlike(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("lagentlike: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_debug_shows_the_traceback(lagentlike: Callable[..., Outcome]) -> None:
    code, _, err = lagentlike("run", "my_agents:Broken", "hi", "--debug")
    assert code == 1
    assert "Traceback" in err
    assert "return 1 / 0" in err


# run


@pytest.mark.parametrize(
    "target", ["my_agents:blocking", "my_agents.py:streaming", "my_agents:Async", "my_agents:make"]
)
def test_run_takes_agents_of_every_colour(lagentlike: Callable[..., Outcome], target: str) -> None:
    assert lagentlike("run", target, "hello") == (0, "1: hello\n", "")


def test_run_takes_the_name_agent_by_default(lagentlike: Callable[..., Outcome]) -> None:
    assert lagentlike("run", "my_agents.py", "hello").out == "1: hello\n"


def test_run_joins_words_also_after_options(lagentlike: Callable[..., Outcome]) -> None:
    assert lagentlike("run", "my_agents:agent", "--session", "ann", "hello", "there").out == "1: hello there\n"


def test_run_reads_the_message_from_standard_input(lagentlike: Callable[..., Outcome]) -> None:
    assert lagentlike("run", "my_agents:agent", stdin="a question\n").out == "1: a question\n"


@pytest.mark.parametrize("target", ["my_agents:streaming", "my_agents:make"])
def test_run_streams(lagentlike: Callable[..., Outcome], target: str) -> None:
    assert lagentlike("run", target, "--stream", "hello").out == "1: hello\n"
    parts = [
        json.loads(line)
        for line in lagentlike("run", target, "--stream", "--json", "--session", "b", "x").out.splitlines()
    ]
    assert [part["content"] for part in parts] == ["1:", "1: x", "1: x"]
    assert [part["stream_state"] for part in parts] == [1, 1, 0]


def test_run_prints_whole_messages_as_json(lagentlike: Callable[..., Outcome]) -> None:
    message = json.loads(lagentlike("run", "my_agents:react", "--json", "Double 4.").out)
    assert message["content"] == "It is 8."
    assert message["usage"]["requests"] == 1


def test_run_keeps_memory_in_a_file(lagentlike: Callable[..., Outcome]) -> None:
    state = ("--state", "memory.json")
    assert lagentlike("run", "my_agents.py:agent", *state, "--session", "ann", "one").out == "1: one\n"
    assert lagentlike("run", "my_agents.py:agent", *state, "--session", "ann", "two").out == "3: two\n"
    assert lagentlike("run", "my_agents.py:agent", *state, "--session", "bob", "three").out == "1: three\n"
    out = lagentlike("summary", "my_agents.py:agent", *state).out
    assert "'ann'" in out
    assert "'bob'" in out


# summary


def test_summary_shows_tree_and_table(lagentlike: Callable[..., Outcome]) -> None:
    out = lagentlike("summary", "my_agents:react").out
    assert "(double): FunctionTool('double')" in out
    assert "(root)" in out


def test_summary_draws_a_flowchart(lagentlike: Callable[..., Outcome]) -> None:
    out = lagentlike("summary", "my_agents:react", "--mermaid").out
    assert out.startswith("flowchart TD\n")
    assert "-->" in out


# chat, with standard input as a pipe


def test_chat_answers_each_line(lagentlike: Callable[..., Outcome]) -> None:
    code, out, err = lagentlike("chat", stdin="What is the result of 12 * 34?\n\nWhat is the result of 1 + 1?\n")
    assert (code, err) == (0, "")
    assert out == "The result of 12 * 34 is 408.\nThe result of 1 + 1 is 2.\n"


def test_chat_keeps_sessions_apart(lagentlike: Callable[..., Outcome]) -> None:
    ask = "What is my name?"
    script = f"My name is Ann.\n/fork copy\nMy name is Bob.\n/session 0\n{ask}\n/session copy\n{ask}\n/session\n"
    out = lagentlike("chat", "--no-tools", stdin=script).out.splitlines()
    assert out[1] == "session copy, 2 messages"
    assert "Ann" in out[4]
    assert "Bob" in out[6]
    assert out[-2:] == ["   0  4 messages", " * copy  6 messages"]


def test_chat_forgets_saves_and_loads(lagentlike: Callable[..., Outcome], tmp_path: Path) -> None:
    script = "Hello\n/save s.json\n/reset\n/session\n/load s.json\n/session\n"
    out = lagentlike("chat", stdin=script).out.splitlines()
    assert out[1:] == [
        "1 sessions are in s.json",
        "session 0 is empty",
        " * 0  0 messages",
        "1 sessions were read from s.json",
        " * 0  2 messages",
    ]
    again = lagentlike("chat", "--load", "s.json", stdin="/session\n").out
    assert again == " * 0  2 messages\n"


def test_chat_goes_on_with_a_kept_session(lagentlike: Callable[..., Outcome], tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "talks.db"), "--session", "travel")
    lagentlike("chat", *store, stdin="My name is Ann.\n/fork copy\nThank you\n")
    again = lagentlike("chat", *store, stdin="What is my name?\n/session\n/search ann\n/reset\n")
    assert "Your name is Ann." in again.out
    assert "travel  4 messages" in again.out
    assert "copy  kept" in again.out
    assert "copy  user: My name is Ann." in again.out
    assert "Ann" not in lagentlike("chat", *store, stdin="What is my name?\n").out


def test_chat_shows_state_as_json(lagentlike: Callable[..., Outcome]) -> None:
    out = lagentlike("chat", stdin="What is the result of 1 + 1?\n/state\n").out
    state = json.loads(out.partition("\n")[2])
    assert list(state) == ["memory", "agent.memory"]
    assert state["agent.memory"][2]["tool_results"][0]["output"] == "2"


def test_chat_lists_commands_and_tools(lagentlike: Callable[..., Outcome]) -> None:
    out = lagentlike("chat", "--tool", "my_agents.py:double", "--tool", "calculator", stdin="/help\n/tools\n").out
    assert "/fork NAME" in out
    assert "double(number)  Double a number." in out
    assert "calculator(expression)" in out
    assert "none" in lagentlike("chat", "--no-tools", stdin="/tools\n").out


def test_chat_goes_on_after_an_error_and_tells_at_the_end(lagentlike: Callable[..., Outcome]) -> None:
    code, out, err = lagentlike("chat", stdin="/frobnicate\n/fork\n/fork 0\n/__init__\nWhat is the result of 1 + 1?\n")
    assert code == 1
    assert out == "The result of 1 + 1 is 2.\n"
    assert err.count("error: ") == 4


def test_chat_ends_at_quit(lagentlike: Callable[..., Outcome]) -> None:
    assert lagentlike("chat", stdin="/quit\nHello\n") == (0, "", "")


def test_chat_with_a_server_that_is_not_there(lagentlike: Callable[..., Outcome]) -> None:
    code, out, err = lagentlike("chat", "--model", "m", "--api-base", "http://127.0.0.1:9/v1", stdin="Hello\n")
    assert (code, out) == (1, "")
    assert "127.0.0.1:9" in err


def test_chat_streams_from_a_server(lagentlike: Callable[..., Outcome]) -> None:
    server = ModelServer(AsyncTinyLM(), port=0)
    run_in_background(server.start())
    try:
        served = ("--model", "tinylm", "--api-base", server.url)
        outcome = lagentlike("chat", *served, stdin="What is the result of 12 * 34?\n")
    finally:
        run_in_background(server.stop())
    assert outcome == (0, "The result of 12 * 34 is 408.\n", "")


@pytest.mark.parametrize("command", [("demo",), ("chat", "--tool", "python"), ("sandbox",)])
def test_a_person_is_told_at_once_that_there_is_no_sandbox(
    lagentlike: Callable[..., Outcome], command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = lagentlike(*command, stdin="")
    assert (code, out) == (1, "")
    assert err.startswith("lagentlike: error: bwrap is not installed. Install bubblewrap")
    assert "--unsafe-local" in err


def test_code_runs_without_a_sandbox_only_where_that_is_asked_for(
    lagentlike: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    code, out, err = lagentlike("chat", "--unsafe-local", "--tool", "python", stdin="/tools\n")
    assert (code, err) == (0, "")
    assert "IPythonInterpreter" in out
    assert lagentlike("chat", "--tool", "python", stdin="/tools\n").code == 1, "and only for that command"
