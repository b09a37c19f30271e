"""How a conversation becomes the body of a request."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from lagentlike.llms.openai_wire import ChatAssembler, MessageEncoder, parse_completion, schema_of_answer
from lagentlike.prompts.parsers.room import MAX_CONTAINERS
from lagentlike.schema import ChatMessage


def _conversation(length: int) -> list[dict[str, Any]]:
    return [ChatMessage({"role": "user" if n % 2 else "assistant", "content": f"message {n}"}) for n in range(length)]


def _sent(encoder: MessageEncoder, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = json.loads(b"[" + encoder.joined(messages) + b"]")
    return sent


@pytest.mark.parametrize("length", [1, 23, 24, 300])
def test_a_conversation_that_goes_on_is_sent_whole(length: int) -> None:
    encoder = MessageEncoder()
    messages = _conversation(length)
    for turn in range(5):
        assert _sent(encoder, messages) == messages
        messages = messages + _conversation(turn)


def test_only_what_is_new_is_encoded_and_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = MessageEncoder()
    messages = _conversation(100)
    encoder.joined(messages)
    looked_at: list[int] = []
    encoded = encoder._encoded
    monkeypatch.setattr(encoder, "_encoded", lambda new: looked_at.append(len(new)) or encoded(new))
    longer = [*messages, *_conversation(2)]
    assert _sent(encoder, longer) == longer
    assert _sent(encoder, longer) == longer
    assert looked_at == [2, 0]


def test_an_edit_of_a_message_sent_before_is_sent() -> None:
    encoder = MessageEncoder()
    messages = _conversation(50)
    encoder.joined(messages)
    messages[10]["content"] = "edited"
    assert _sent(encoder, [*messages, *_conversation(2)])[10]["content"] == "edited"


def test_an_edit_of_a_plain_dict_sent_before_is_sent() -> None:
    encoder = MessageEncoder()
    messages: list[dict[str, Any]] = [{"role": "system", "content": "old"}, *_conversation(50)]
    encoder.joined(messages)
    messages[0]["content"] = "new"
    assert _sent(encoder, [*messages, *_conversation(2)])[0]["content"] == "new"


def test_a_changed_beginning_is_sent() -> None:
    encoder = MessageEncoder()
    messages = _conversation(50)
    encoder.joined(messages)
    other = [ChatMessage({"role": "system", "content": "other"}), *messages[1:], *_conversation(2)]
    assert _sent(encoder, other) == other
    assert _sent(encoder, messages[:30]) == messages[:30]
    assert _sent(encoder, messages[1:]) == messages[1:]


def test_two_branches_of_a_conversation_are_told_apart() -> None:
    encoder = MessageEncoder()
    trunk = _conversation(40)
    encoder.joined(trunk)
    one, two = [*trunk, *_conversation(3)], [*trunk, *_conversation(5)]
    for _ in range(3):
        assert _sent(encoder, one) == one
        assert _sent(encoder, two) == two
        one, two = [*one, *_conversation(1)], [*two, *_conversation(2)]


def test_what_was_sent_is_known_of_a_bounded_number_of_conversations() -> None:
    encoder = MessageEncoder()
    for _ in range(300):
        encoder.joined(_conversation(24))
    assert len(encoder._known) == 256


def test_a_copied_encoder_forgets_what_was_sent() -> None:
    encoder = MessageEncoder()
    messages = _conversation(30)
    encoder.joined(messages)
    assert not copy.deepcopy(encoder)._known
    assert _sent(copy.deepcopy(encoder), messages) == messages


@pytest.mark.parametrize("streamed", [False, True])
def test_calls_of_too_many_lists_and_objects_stay_text_and_are_not_made(streamed: bool) -> None:
    half = json.dumps({"items": [[]] * (MAX_CONTAINERS // 2)})
    text = json.dumps({"text": "[{" * MAX_CONTAINERS})
    calls = [
        {"index": index, "id": f"call_{index}", "function": {"name": "f", "arguments": arguments}}
        for index, arguments in enumerate([text, half, half, half])
    ]
    if streamed:
        assembler = ChatAssembler()
        assembler.feed([json.dumps({"choices": [{"delta": {"tool_calls": calls}, "finish_reason": "stop"}]}).encode()])
        [(_, answer)] = assembler.close()
    else:
        answer = parse_completion(json.dumps({"choices": [{"message": {"tool_calls": calls}}]}).encode())
    made = answer.tool_calls or []
    assert [isinstance(call.arguments, dict) for call in made] == [True, True, False, False]
    assert ["lists and objects" in call.error for call in made] == [False, False, True, True]
    assert made[2].arguments == half


def test_what_another_provider_wants_back_is_not_sent() -> None:
    message = {
        "role": "assistant",
        "content": "4",
        "blocks": [{"type": "thinking", "thinking": "2 + 2", "signature": "E"}],
    }
    assert json.loads(MessageEncoder()(message)) == {"role": "assistant", "content": "4"}


@pytest.mark.parametrize(
    ("wanted", "schema"),
    [
        (None, None),
        ({"type": "json_object"}, None),
        ({"title": "point", "type": "object"}, {"title": "point", "type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "p", "schema": {"type": "object"}}}, {"type": "object"}),
    ],
)
def test_the_schema_of_an_answer_is_found_in_any_form(wanted: Any, schema: Any) -> None:
    assert schema_of_answer({"response_format": wanted}) == schema
