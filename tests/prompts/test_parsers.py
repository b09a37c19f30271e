"""Parsers find what a model wrote, and never raise on it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

from lagentlike.agents import Agent, AgentForInternLM, ReAct
from lagentlike.errors import InvalidArgument
from lagentlike.llms import ScriptedLLM
from lagentlike.prompts import InterpreterParser, JSONParser, MixedToolParser, PluginParser, StrParser, ToolParser
from lagentlike.prompts.parsers.tool_call import MAX_CALLS
from lagentlike.schema import ToolStatusCode

NO, VALID, WRONG = ToolStatusCode.NO_TOOL, ToolStatusCode.VALID_TOOL, ToolStatusCode.PARSING_ERROR


class Answer(BaseModel):
    city: str
    size: int = 0

    @field_validator("city")
    @classmethod
    def known(cls, city: str) -> str:
        return {"Paris": "Paris", "Rome": "Rome"}[city]  # raises KeyError, which is no validation error


def python() -> ToolParser:
    return ToolParser("code interpreter", begin="```python\n", end="\n```\n")


# Text


def test_a_text_is_taken_as_it_is() -> None:
    parser = StrParser()
    assert (parser.parse_response("x"), parser.format_response("x"), parser.format_instruction()) == ("x", "x", "")


def test_an_instruction_takes_its_fields_as_text_or_json() -> None:
    parser = StrParser("Answer as {shape} in {language}.", shape={"a": ["ä"]}, language="French")
    assert parser.format_instruction() == 'Answer as {"a": ["ä"]} in French.'
    assert StrParser("As {it is}.").format_instruction() == "As {it is}."


# Between two marks


@pytest.mark.parametrize(
    ("text", "thought", "action"),
    [
        ("Let me.\n```python\nprint(1)\n```\n", "Let me.\n", "print(1)"),
        ("```python\nprint(1)\n```\nand on", "", "print(1)"),
        ("a```python\nprint(1)", "a", "print(1)"),  # a stop word ate the end
        ("a```python\nprint(1)\n```", "a", "print(1)"),  # or a part of it
        ("a```python\nprint(1)\n", "a", "print(1)\n"),
        ("```python\none\n```\n```python\ntwo\n```\n", "", "one"),
        ("```python\n", "", ""),
        ("<think>```python\nno\n```\n</think>```python\nyes\n```\n", "<think>```python\nno\n```\n</think>", "yes"),
    ],
)
def test_a_call_is_found_whole_or_cut_by_a_stop_word(text: str, thought: str, action: str) -> None:
    assert python().parse_response(text) == {
        "tool_type": "code interpreter", "thought": thought, "action": action, "status": VALID,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "no call", "``python\n1", "```py\n1", "<think>```python\n1\n```\n", "\ud800"])
def test_a_text_without_a_call_is_a_thought(text: str) -> None:
    assert python().parse_response(text) == {"tool_type": None, "thought": text, "action": None, "status": NO}


def test_a_call_that_does_not_pass_the_check_is_kept_as_text() -> None:
    parser = ToolParser("t", begin="<", end=">", validate=json.loads)
    assert parser.parse_response("a<[1]>")["action"] == [1]
    assert parser.parse_response("a<[1>") == {"tool_type": "t", "thought": "a", "action": "[1", "status": WRONG}
    deep = parser.parse_response("<" + "[" * 100_000 + ">")
    assert deep["status"] == WRONG


def test_the_check_may_be_a_dotted_path() -> None:
    assert ToolParser("t", begin="<", end=">", validate="json.loads").parse_response("<1>")["action"] == 1
    with pytest.raises(InvalidArgument, match="validate="):
        ToolParser("t", validate="json.nothing")


@pytest.mark.parametrize("options", [{"begin": ""}, {"end": ""}])
def test_marks_cannot_be_empty(options: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        ToolParser("t", **options)  # type: ignore[arg-type]


def test_an_answer_is_written_again_with_both_marks() -> None:
    parser = python()
    for text in ("a```python\nprint(1)\n```\n", "a```python\nprint(1)", "no call"):
        again = parser.format_response(parser.parse_response(text))
        assert again == ("a```python\nprint(1)\n```\n" if "python" in text else text)
        assert parser.parse_response(again)["action"] == parser.parse_response(text)["action"]


def test_an_action_that_is_no_json_can_be_written_again() -> None:
    parser = ToolParser("t", begin="<", end=">", validate=lambda text: {text})
    assert parser.format_response(parser.parse_response("a<b>")) == "a<\"{'b'}\">"


# InternLM's marks


def test_interpreter_and_plugin_calls_are_told_apart() -> None:
    parser = MixedToolParser(template="Tools:", parsers=[PluginParser(template="P"), InterpreterParser(template="I")])
    plugin = '<|action_start|><|plugin|>\n{"name": "f", "parameters": {"a": 1}}<|action_end|>\n'
    code = "think<|action_start|><|interpreter|>\nprint(1)<|action_end|>\n"
    assert parser.parse_response(plugin) == {
        "tool_type": "plugin", "thought": "", "action": {"name": "f", "parameters": {"a": 1}}, "status": VALID,
    }  # fmt: skip
    found = parser.parse_response(code)
    assert (found["tool_type"], found["thought"], found["action"]) == ("interpreter", "think", "print(1)")
    assert parser.parse_response("none") == {"tool_type": None, "thought": "none", "action": None, "status": NO}
    assert parser.format_response(found) == code
    assert parser.format_response(parser.parse_response("none")) == "none"
    assert parser.format_instruction() == [
        {"role": "system", "content": "Tools:"},
        {"role": "system", "content": "P", "name": "plugin"},
        {"role": "system", "content": "I", "name": "interpreter"},
    ]


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ('{"name": "f"}', VALID),
        ('{"name": "f", "arguments": {"a": 1}}', VALID),
        ('{"name": 5}', WRONG),
        ('{"name": "f", "parameters": [1]}', WRONG),
        ("[]", WRONG),
        ("null", WRONG),
        ("{'name': 'f'}", WRONG),
        ("", WRONG),
    ],
)
def test_a_plugin_call_is_an_object_with_name_and_parameters(call: str, status: ToolStatusCode) -> None:
    found = PluginParser().parse_response(f"<|action_start|><|plugin|>\n{call}<|action_end|>\n")
    assert found["status"] == status
    assert found["action"] == call if status == WRONG else set(found["action"]) == {"name", "parameters"}


@pytest.mark.parametrize("first", ["plugin", "interpreter"])
def test_of_calls_of_two_kinds_the_first_in_the_text_is_made(first: str) -> None:
    calls = {
        "plugin": '<|action_start|><|plugin|>\n{"name": "f"}<|action_end|>\n',
        "interpreter": "<|action_start|><|interpreter|>\nprint(1)<|action_end|>\n",
    }
    text = calls.pop(first) + next(iter(calls.values()))
    assert MixedToolParser(parsers=[PluginParser(), InterpreterParser()]).parse_response(text)["tool_type"] == first


@pytest.mark.parametrize("parser", [StrParser(), "plugin", 5, {"type": StrParser}])
def test_only_tool_parsers_are_mixed(parser: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"parsers\[0\]="):
        MixedToolParser(parsers=[parser])


# JSON that fits a model


@pytest.mark.parametrize(
    "text",
    [
        '{"city": "Paris", "size": 2}',
        'Here: ```json\n{"city": "Paris", "size": 2}\n```',
        '{"size": "2", "city": "Paris", "extra": {}}',
    ],
)
def test_an_object_that_fits_is_found(text: str) -> None:
    assert JSONParser(answer=Answer).parse_response(text) == {"city": "Paris", "size": 2}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nothing", "holds no JSON object"),
        ("}{", "holds no JSON object"),
        ('{"size": 2}', "city: Field required"),
        ('{"city": "Paris", "size": "many"}', "size: "),
        ('{"city": "Atlantis"}', "Atlantis"),
        ("{" * 100_000 + "}", ""),
        ('{"city": "\ud800"}', ""),
    ],
)
def test_what_does_not_fit_is_told_and_kept(text: str, error: str) -> None:
    found = JSONParser(answer=Answer).parse_response(text)
    assert found["text"] == text
    assert error in found["error"]


def test_the_instruction_shows_the_schema() -> None:
    instruction = JSONParser(answer=Answer, template="As {answer}!").format_instruction()
    assert json.loads(instruction[3:-1])["required"] == ["city"]
    assert "JSON Schema" in JSONParser(schema=Answer).format_instruction()
    assert JSONParser(Answer).format_instruction() == JSONParser(schema=Answer).format_instruction()


@pytest.mark.parametrize("types", [{}, {"a": Answer, "b": Answer}, {"a": dict}, {"a": 5}])
def test_exactly_one_model_is_needed(types: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        JSONParser(**types)
    with pytest.raises(InvalidArgument):
        JSONParser(dict, **types)  # type: ignore[arg-type]


def test_what_is_found_goes_into_formatted() -> None:
    agent = Agent(ScriptedLLM(['{"city": "Rome"}']), output_format=JSONParser(schema=Answer))
    assert agent("where?").formatted == {"city": "Rome", "size": 0}
    assert "JSON Schema" in agent.llm.requests[0].messages[0]["content"]


# Anything a model may write

PARSERS = [
    StrParser(),
    python(),
    ToolParser("t", begin="<", end=">", validate=lambda text: [json.loads(text)]),
    InterpreterParser(),
    PluginParser(),
    MixedToolParser(parsers=[PluginParser(), InterpreterParser(), python()]),
    JSONParser(answer=Answer),
]
pieces = st.sampled_from(
    ["<|action_start|>", "<|plugin|>\n", "<|interpreter|>\n", "<|action_end|>\n", "```python\n", "\n```\n", "<", ">",
     "<think>", "</think>", '{"name": "f"}', '{"city": "Paris"}', "{", "}", "[", "null", "NaN", "\ud83d", "\x00"]
)  # fmt: skip
written = st.lists(pieces | st.text(st.characters(codec=None), max_size=5), max_size=12).map("".join)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: type(parser).__name__)
def test_no_parser_raises_on_what_a_model_wrote(parser: Any) -> None:
    @given(written)
    @settings(max_examples=300, deadline=None)
    def check(text: str) -> None:
        found = parser.parse_response(text)
        if isinstance(parser, ToolParser | MixedToolParser):
            assert set(found) == {"tool_type", "thought", "action", "status"}
            assert (found["tool_type"] is None) == (found["action"] is None) == (found["status"] == NO)
            assert text.startswith(found["thought"])
            assert isinstance(parser.format_response(found), str)

    check()


@pytest.mark.parametrize(
    "text",
    [
        "<think></think>" * 70_000 + "```python\n1",
        "<think>" * 150_000,
        "```python\n" * 100_000,
        "{" * 1_000_000,
        "<|action_start|><|plugin|>\n" * 40_000,
        "<think>```python\n</think>" * 40_000,
        "\n```" * 250_000,
    ],
    ids=["many thoughts", "open thoughts", "many calls", "braces", "plugins", "calls in thoughts", "ends"],
)
def test_a_megabyte_is_read_in_a_moment(text: str) -> None:
    started = time.process_time()
    for parser in PARSERS:
        parser.parse_response(text)
    assert time.process_time() - started < len(PARSERS)  # a second each; quadratic reading takes minutes


# Several calls


def test_several_calls_are_kept_in_order_where_a_parser_may_have_them() -> None:
    text = "One.\n```python\na\n```\nTwo.\n```python\nb\n```\nDone."
    assert "calls" not in python().parse_response(text)
    parser = ToolParser("code", begin="```python\n", end="\n```\n", many=True)
    found = parser.parse_response(text)
    assert (found["thought"], found["action"], found["status"]) == ("One.\n", "a", VALID)
    assert [(call["thought"], call["action"]) for call in found["calls"]] == [("One.\n", "a"), ("Two.\n", "b")]
    assert parser.format_response(found) == text.removesuffix("Done.")
    assert "calls" not in parser.parse_response("One.\n```python\na\n```\n")
    assert [call["status"] for call in parser.parse_cut(text + "```python\nc")["calls"]] == [VALID, VALID, WRONG]


def test_more_calls_than_may_be_are_wrong() -> None:
    parser = ToolParser("code", begin="<", end=">", many=True)
    calls = parser.parse_response("<x>" * 1000)["calls"]
    assert [call["status"] for call in calls] == [VALID] * MAX_CALLS + [WRONG]


def test_calls_of_several_parsers_come_in_their_order_in_the_text() -> None:
    parser = MixedToolParser(parsers=[PluginParser(many=True), InterpreterParser(many=True)])
    plugin, code = (
        '<|action_start|><|plugin|>\n{"name": "f"}<|action_end|>\n',
        ("<|action_start|><|interpreter|>\n1<|action_end|>\n"),
    )
    found = parser.parse_response(f"A{plugin}B{code}C{plugin}")
    assert [(call["thought"], call["tool_type"]) for call in found["calls"]] == [
        ("A", "plugin"), ("B", "interpreter"), ("C", "plugin"),
    ]  # fmt: skip
    assert (found["thought"], found["tool_type"]) == ("A", "plugin")
    written = parser.format_response(found)
    assert [call["action"] for call in parser.parse_response(written)["calls"]] == [
        call["action"] for call in found["calls"]
    ]


def test_an_agent_runs_several_calls_of_plugins_and_code() -> None:
    def double(x: int) -> int:
        """Double a number."""
        return 2 * x

    def run(command: str) -> str:
        """Run code."""
        return f"ran {command}"

    plugin = '<|action_start|><|plugin|>\n{"name": "double", "parameters": {"x": 4}}<|action_end|>\n'
    code = "<|action_start|><|interpreter|>\n1 + 1<|action_end|>\n"
    llm = ScriptedLLM([f"Both.{plugin}{code}{plugin.replace('4', '5')}", "Done."])
    parser = MixedToolParser(parsers=[PluginParser(many=True), InterpreterParser(many=True)])
    agent = AgentForInternLM(llm, plugins=[double], interpreter=[run], output_format=parser)
    assert agent("Go").content == "Done."
    history = [(message["role"], message["content"]) for message in llm.requests[1].messages[-4:]]
    assert history[0][0] == "assistant"
    assert [parsed["tool_type"] for parsed in parser.parse_response(history[0][1])["calls"]] == [
        "plugin", "interpreter", "plugin",
    ]  # fmt: skip
    assert history[1:] == [("environment", "8"), ("environment", "ran 1 + 1"), ("environment", "10")]


def test_react_runs_several_calls_of_a_fence() -> None:
    def run(command: str) -> str:
        """Run code."""
        return f"ran {command}"

    parser = ToolParser("tool", begin="<call>", end="</call>", validate="json.loads", many=True)
    call = '<call>{"name": "run", "parameters": {"command": "x"}}</call>'
    llm = ScriptedLLM([f"A{call}B{call.replace('x', 'y')}C<call>{{</call>", "Done."])
    assert ReAct(llm, [run], output_format=parser)("Go").content == "Done."
    first, second, third = llm.requests[1].messages[-1]["content"].split("\n")
    assert (first, second) == ("ran x", "ran y")
    assert "cannot be read" in third
