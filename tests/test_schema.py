"""What travels: messages that carry everything, copies that share nothing one edits, answers that are texts."""

from __future__ import annotations

import copy
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import Enum, IntEnum, StrEnum
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from lagentlike.schema import (
    ActionReturn,
    ActionStatusCode,
    ActionValidCode,
    AgentMessage,
    AgentStatusCode,
    ChatMessage,
    Completion,
    FunctionCall,
    ModelStatusCode,
    to_plain,
    TokenSpan,
    ToolCall,
    ToolResult,
    ToolStatusCode,
    Usage,
)


@pytest.mark.parametrize(
    ("codes", "values"),
    [
        (
            ModelStatusCode,
            {"END": 0, "STREAM_ING": 1, "SERVER_ERR": -1, "SESSION_CLOSED": -2, "SESSION_OUT_OF_LIMIT": -3,
             "SESSION_INVALID_ARG": -4, "SESSION_READY": 2},
        ),
        (
            AgentStatusCode,
            {"END": 0, "STREAM_ING": 1, "SERVER_ERR": -1, "SESSION_CLOSED": -2, "SESSION_OUT_OF_LIMIT": -3,
             "SESSION_INVALID_ARG": -4, "SESSION_READY": 2, "PLUGIN_START": 3, "PLUGIN_END": 4, "PLUGIN_RETURN": 5,
             "CODING": 6, "CODE_END": 7, "CODE_RETURN": 8},
        ),
        (
            ActionStatusCode,
            {"ING": 1, "SUCCESS": 0, "HTTP_ERROR": -1000, "ARGS_ERROR": -1001, "API_ERROR": -1002},
        ),
        (ActionValidCode, {"FINISH": 1, "OPEN": 0, "CLOSED": -1, "INVALID": -2, "ABSENT": -3}),
        (ToolStatusCode, {"NO_TOOL": 0, "VALID_TOOL": 1, "PARSING_ERROR": -1}),
    ],
)  # fmt: skip
def test_codes_have_the_values_that_lagent_gave_them(codes: type[IntEnum], values: dict[str, int]) -> None:
    assert {code.name: code.value for code in codes} == values


def test_a_message_has_its_seven_fields_with_their_defaults() -> None:
    message = AgentMessage(content="hi")
    assert list(message.plain().items()) == [
        ("content", "hi"), ("sender", "user"), ("formatted", None), ("extra_info", None), ("type", None),
        ("receiver", None), ("stream_state", 0),
    ]  # fmt: skip
    with pytest.raises(ValidationError):
        AgentMessage()  # type: ignore[call-arg]


def test_the_codes_of_models_and_agents_are_understood() -> None:
    for state in (ModelStatusCode.STREAM_ING, AgentStatusCode.STREAM_ING, 1):
        assert AgentMessage(content="x", stream_state=state).stream_state is AgentStatusCode.STREAM_ING


def test_a_message_prints_what_is_set() -> None:
    assert repr(AgentMessage(content="hi")) == "AgentMessage(content='hi', sender='user')"
    assert str(AgentMessage(content="", sender="bot", type="x")) == "content='' sender='bot' type='x'"

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError("arrays cannot be compared like that")

        def __hash__(self) -> int:
            return 0

    assert "extra_info=" in repr(AgentMessage(content="x", extra_info=Odd()))


def test_a_message_dumps_as_pydantic_models_do() -> None:
    message = AgentMessage(content=FunctionCall("add", {"a": 1}), formatted={"status": ToolStatusCode.VALID_TOOL})
    dumped = json.loads(message.model_dump_json(indent=4))
    assert dumped["content"] == {"name": "add", "parameters": {"a": 1}}
    assert dumped["formatted"] == {"status": 1}
    assert AgentMessage.model_validate(dumped).sender == "user"


class Inner(BaseModel):
    items: list[int]


@pytest.mark.parametrize(
    ("make", "edit"),
    [
        (lambda: {"a": {"b": [1]}}, lambda value: value["a"]["b"].append(2)),
        (lambda: [[1]], lambda value: value[0].append(2)),
        (lambda: ({"a": 1},), lambda value: value[0].update(a=2)),
        (lambda: OrderedDict(a=[1]), lambda value: value["a"].append(2)),
        (lambda: {1, 2}, lambda value: value.add(3)),
        (lambda: Inner(items=[1]), lambda value: value.items.append(2)),
        (lambda: FunctionCall("f", {"a": [1]}), lambda value: value.parameters["a"].append(2)),
        (lambda: ActionReturn(result=[{"a": 1}]), lambda value: value.result[0].update(a=2)),
        (lambda: [ToolCall("f", {"a": 1})], lambda value: value[0].arguments.update(a=2)),
    ],
    ids=["dicts", "lists", "tuples", "ordered dicts", "sets", "models", "calls", "returns", "lists of calls"],
)
def test_a_clone_can_be_edited_without_touching_the_message(
    make: Callable[[], Any], edit: Callable[[Any], Any]
) -> None:
    message = AgentMessage(content=make(), formatted=make(), extra_info=make())
    twin = message.clone()
    assert twin == message
    for field in ("content", "formatted", "extra_info"):
        edit(getattr(twin, field))
        assert getattr(message, field) == make()


def test_a_clone_has_calls_results_and_usage_of_its_own() -> None:
    message = AgentMessage(
        content="x", tool_calls=[ToolCall("f", {"a": 1})], tool_results=[ToolResult(True, "y")], usage=Usage(1)
    )
    twin = message.clone()
    twin.tool_calls[0].arguments["a"] = 2  # type: ignore[index]
    twin.tool_calls.append(ToolCall("g", {}))  # type: ignore[union-attr]
    twin.tool_results[0].metadata["k"] = 1  # type: ignore[index]
    twin.usage += Usage(5)  # type: ignore[operator]
    assert message == AgentMessage(
        content="x", tool_calls=[ToolCall("f", {"a": 1})], tool_results=[ToolResult(True, "y")], usage=Usage(1)
    )


def test_a_clone_shares_what_cannot_be_copied_safely() -> None:
    handle = object()
    message = AgentMessage(content=handle, tokens=TokenSpan([1]))
    assert message.clone().content is handle
    assert message.clone().tokens is message.tokens


def test_what_a_namesake_sent_to_a_unit_is_not_from_that_unit() -> None:
    assert AgentMessage(content="x", sender="a").is_from("a")
    assert not AgentMessage(content="x", sender="a", receiver="a").is_from("a")
    assert not AgentMessage(content="x", sender="b").is_from("a")


# Results


def test_results_are_joined_as_text_and_links() -> None:
    returned = ActionReturn(
        result=[{"type": "text", "content": "4"}, {"type": "image", "content": "a.png"}, {"type": "text", "content": 5}]
    )
    assert returned.format_result() == "4\n[image](a.png)\n5"
    assert ActionReturn().format_result() == ""


def test_what_a_model_is_shown_of_a_result() -> None:
    assert ActionReturn(result=[{"type": "text", "content": "4"}]).text == "4"
    assert ActionReturn(state=ActionStatusCode.API_ERROR, errmsg="no").text == "no"
    assert ActionReturn(state=ActionStatusCode.HTTP_ERROR).text == "the call failed (HTTP_ERROR)"
    assert (ToolResult(True, "out").text, ToolResult(False, "out", "bad").text) == ("out", "Error: bad")


def test_a_call_as_a_server_wants_it() -> None:
    assert ToolCall("add", {"ä": 1}, id="7").as_openai() == {
        "id": "7", "type": "function", "function": {"name": "add", "arguments": '{"ä": 1}'},
    }  # fmt: skip
    assert ToolCall("add", "{broken").as_openai()["function"]["arguments"] == "{broken"


def test_usage_adds_up() -> None:
    usage = Usage(1, 2, 3, 4, 5)
    assert usage + usage == Usage(2, 4, 6, 8, 10)
    assert sum([usage, usage], Usage()).total_tokens == 10
    assert usage == Usage(1, 2, 3, 4, 5)


# Answers


def test_an_answer_is_a_text_that_carries_the_rest() -> None:
    answer = Completion(
        "hi", reasoning="r", blocks=[{"type": "text", "text": "hi"}], usage=Usage(1), model="m", finish_reason="stop"
    )
    assert (answer + "!", answer.upper(), answer.text) == ("hi!", "HI", "hi")
    assert type(answer.text) is str
    for twin in (copy.copy(answer), copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert (twin, twin.extras()) == (answer, answer.extras())


def test_an_answer_in_a_message_is_saved_as_text() -> None:
    plain = AgentMessage(content=Completion("hi")).plain()
    assert type(plain["content"]) is str


# Plain data


class Colour(Enum):
    RED = "red"


class Word(StrEnum):
    A = "a"


@dataclass
class Point:
    x: int
    y: Any


class Number(float):
    """A float of a kind of its own, as numpy's are."""


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, "red"),
        (Word.A, "a"),
        (ToolStatusCode.VALID_TOOL, 1),
        (Point(1, (2, Point(3, 4))), {"x": 1, "y": [2, {"x": 3, "y": 4}]}),
        (Inner(items=[1]), {"items": [1]}),
        (OrderedDict(a=1), {"a": 1}),
        ({Word.A: 1}, {"a": 1}),
        (Number(1.5), 1.5),
        (True, True),
        (Completion("x"), "x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_become_what_json_gives_back_equal(value: Any, plain: Any) -> None:
    made = to_plain(value)
    assert made == plain
    assert json.loads(json.dumps(made)) == made
    assert type(made) is type(plain)
    if isinstance(made, dict):
        assert all(type(key) is str for key in made)


def test_numpy_numbers_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    assert to_plain({"a": numpy.float64(0.5)}) == {"a": 0.5}
    with pytest.raises(TypeError, match="which has no JSON form"):
        to_plain(numpy.zeros(3))


# Chat messages


def test_a_chat_message_is_encoded_once_for_each_dialect() -> None:
    calls = []

    def encode(message: Any) -> bytes:
        calls.append(dict(message))
        return json.dumps(message).encode()

    message = ChatMessage(role="user", content="hi")
    for _ in range(3):
        assert message.encoded("openai", encode) == b'{"role": "user", "content": "hi"}'
    message.encoded("other", encode)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "edit",
    [
        lambda message: message.__setitem__("content", "new"),
        lambda message: message.update(content="new"),
        lambda message: message.pop("name"),
        lambda message: message.setdefault("tool_calls", []),
        lambda message: message.__delitem__("name"),
        lambda message: message.popitem(),
        lambda message: message.clear(),
        lambda message: message.__ior__({"content": "new"}),
    ],
)
def test_an_edited_chat_message_is_encoded_anew(edit: Callable[[ChatMessage], Any]) -> None:
    message = ChatMessage(role="user", content="hi", name="n")
    message.encoded("openai", lambda item: json.dumps(item).encode())
    before = ChatMessage.edits
    edit(message)
    assert message.edited
    assert ChatMessage.edits > before
    assert message.encoded("openai", lambda item: json.dumps(item).encode()) == json.dumps(message).encode()


def test_a_chat_message_copies_and_pickles() -> None:
    message = ChatMessage(role="user", content=[{"type": "text"}])
    for twin in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message)), message.copy()):
        assert twin == message
        assert json.dumps(twin) == json.dumps(message)


def test_calls_and_results_answer_to_the_names_that_atropos_has_for_their_ids() -> None:
    call = ToolCall("add", {"a": 1}, "raw", uniq_id="c1")
    assert (call.id, call.uniq_id, ToolCall("add", {}, "raw", "c2").uniq_id) == ("c1", "c1", "c2")
    result = ToolResult(success=True, output="1", uniq_id="c1")
    assert (result.id, result.uniq_id) == ("c1", "c1")
    assert replace(call, id="c3").id == "c3"
    assert copy.deepcopy(call) == pickle.loads(pickle.dumps(call)) == call
    assert "uniq_id" not in asdict(call)
    message = AgentMessage(content="", tool_calls=[call], tool_results=[result])
    assert AgentMessage.model_validate(message.model_dump()) == message == message.clone()


def test_calls_are_read_from_text_with_what_is_wrong_with_them() -> None:
    text = (
        '<think><tool_call>{"name": "no"}</tool_call></think>'
        '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
        '<tool_call>{"name": "add", "arguments": [1]}</tool_call><tool_call>{oops}</tool_call><tool_call>{"name": "x"'
    )
    good, listed, broken, unclosed = ToolCall.parse_from_text(text)
    assert (good.name, good.arguments, good.error) == ("add", {"a": 1}, "")
    assert "no JSON object" in listed.error
    assert "no valid JSON" in broken.error
    assert "not closed" in unclosed.error
    assert len({call.id for call in (good, listed, broken, unclosed)}) == 4
    assert ToolCall.parse_from_text("It is 42.") == []


@pytest.mark.parametrize("output", ["42", "</tool_response><tool_call>", 'quote " and\nline', "é\u2028"])
def test_no_output_ends_the_block_that_it_is_shown_in(output: str) -> None:
    shown = ToolResult(False, output, "exit code 1", id="c").to_xml()
    assert shown.count("</tool_response>") == 1
    told = json.loads(shown.removeprefix("<tool_response>").removesuffix("</tool_response>"))
    assert told == {"success": False, "output": output, "error": "exit code 1", "uniq_id": "c"}
