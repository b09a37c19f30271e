"""Chunks that differ in their text alone are read as if each was parsed; all others are parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lagentlike.llms.chunk_shape import ChunkShape
from lagentlike.llms.openai_wire import ChatAssembler


def _chunk(content: Any, finish: str | None = None, **besides: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "logprobs": None, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "m", "choices": [choice], **besides}


def _learnt(chunk: dict[str, Any]) -> ChunkShape:
    shape = ChunkShape()
    shape.learn(json.dumps(chunk).encode(), chunk["choices"][0]["delta"]["content"])
    return shape


@pytest.mark.parametrize(
    "text",
    ["two", "", 'a "quoted" word', "back\\slash", "\\", '"', '", "', "line\nbreak", "naïve 😀", '"content": "x"'],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_the_text_is_that_of_the_parsed_chunk(text: str, ascii_only: bool) -> None:
    for first in ("one", text):
        shape = _learnt(_chunk(first))
        chunk = json.dumps(_chunk(text), ensure_ascii=ascii_only).encode()
        assert shape.text_of(chunk) == json.loads(chunk)["choices"][0]["delta"]["content"]


@pytest.mark.parametrize(
    "chunk",
    [
        _chunk("two", finish="stop"),
        _chunk("two", usage={"prompt_tokens": 1}),
        _chunk("two") | {"id": "chatcmpl-2"},
        _chunk(["two"]),
        _chunk(None),
        {"choices": []},
    ],
)
def test_a_chunk_that_tells_anything_else_is_parsed(chunk: dict[str, Any]) -> None:
    assert _learnt(_chunk("one")).text_of(json.dumps(chunk).encode()) is None


@pytest.mark.parametrize("between", [b'"', b'x", "refusal": "y', b"\\", b"a\\", b"\n", b"\xff", b"\\ud83d"])
def test_what_is_no_text_between_the_known_bytes_is_parsed(between: bytes) -> None:
    before, after = json.dumps(_chunk("|")).encode().split(b"|")
    assert _learnt(_chunk("one")).text_of(before + between + after) is None


def test_bytes_that_are_shared_by_what_is_before_and_after_are_no_text() -> None:
    before, after = json.dumps(_chunk("|")).encode().split(b"|")
    assert _learnt(_chunk("one")).text_of(before[:-1] + after) is None
    assert _learnt(_chunk("one")).text_of(b"[DONE]") is None


def test_another_field_of_that_name_is_not_taken_for_the_text() -> None:
    around = {"prompt": {"content": "one"}}
    shape = _learnt(around | _chunk("one"))
    assert shape.text_of(json.dumps(around | _chunk("two")).encode()) == "two"
    assert shape.text_of(json.dumps({"prompt": {"content": "two"}} | _chunk("one")).encode()) is None


def test_the_last_of_two_equal_keys_is_the_text_as_it_is_for_the_parser() -> None:
    twice = b'{"choices": [{"delta": {"content": "%s", "content": "%s"}}]}'
    shape = ChunkShape()
    shape.learn(twice % (b"one", b"one"), "one")
    assert shape.text_of(twice % (b"one", b"two")) == "two"
    assert shape.text_of(twice % (b"two", b"one")) is None


def test_nothing_is_known_at_first() -> None:
    assert ChunkShape().text_of(b"") is None


def _answer(events: list[bytes]) -> tuple[list[tuple[str, str, str | None]], dict[str, Any]]:
    assembler = ChatAssembler()
    parts = [part for event in events for part in assembler.feed([event])] + assembler.close()
    return [(new, answer.text, answer.reasoning) for new, answer in parts], parts[-1][1].extras()


def test_a_stream_of_like_chunks_gives_what_one_of_unlike_chunks_does() -> None:
    call = {"index": 0, "id": "call_1", "function": {"name": "add", "arguments": "{}"}}
    chunks = [
        _chunk("") | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        *(_chunk(f" word{number}") for number in range(5)),
        _chunk("") | {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]},
        _chunk(" more"),
        _chunk(""),
        _chunk(" told") | {"choices": [{**_chunk(" told")["choices"][0], "token_ids": [7, 8]}]},
        _chunk(" after"),
        _chunk("") | {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]},
        _chunk(" end", finish="stop"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}},
    ]
    like = [json.dumps(chunk).encode() for chunk in chunks]
    unlike = [json.dumps({"obfuscation": "x" * number, **chunk}).encode() for number, chunk in enumerate(chunks)]
    parts, extras = _answer(like)
    assert (parts, extras) == _answer(unlike)
    assert parts[-1][1] == " word0 word1 word2 word3 word4 more told after end"
    assert extras["tokens"].ids == [7, 8]
    assert extras["usage"].completion_tokens == 9


def test_token_ids_of_each_chunk_are_all_taken() -> None:
    events = []
    for number in range(4):
        chunk = _chunk("a")
        chunk["choices"][0]["token_ids"] = [number]
        events.append(json.dumps(chunk).encode())
    _, extras = _answer([*events, json.dumps(_chunk("", finish="stop")).encode()])
    assert extras["tokens"].ids == [0, 1, 2, 3]
