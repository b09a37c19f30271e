"""Conversations as token ids: special tokens come from the template alone, and ids so far are never made anew."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, HealthCheck, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from lagentlike.errors import InvalidArgument
from lagentlike.llms.tiny.engine import TinyEngine, WEIGHTS
from lagentlike.prompts.chat import ChatTemplate, ChatTokenizer
from lagentlike.rollouts import chat_tokenizer

from .families import (
    CALCULATOR,
    conversations,
    FAMILIES,
    KINDS,
    NO_CALLS,
    NO_SYSTEM,
    special_tokens,
    TEXT_ARGUMENTS,
    texts,
    tokenizer_of,
    TOOLS,
)

WITHOUT_CALLS = (
    "aya-expanse",
    "chatml",
    "deepseek-r1-distill",
    "gemma-2",
    "gemma-3",
    "granite-3.3",
    "internlm2",
    "llama-3",
)
WITH_CALLS = [name for name in FAMILIES if name not in WITHOUT_CALLS and not name.startswith("phi")]
PLAIN = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "It is 2."}]
quick = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@cache
def of(name: str, kind: str = "bytes") -> ChatTokenizer:
    return ChatTokenizer(tokenizer_of(name, kind))


def theirs(name: str, kind: str, messages: Any, tools: Any, prompt: bool) -> list[int]:
    return list(
        tokenizer_of(name, kind).apply_chat_template(
            messages, tools=tools, add_generation_prompt=prompt, tokenize=True, return_dict=False
        )
    )


def said(tokenizer: ChatTokenizer, messages: Any, tools: Any = None) -> list[str]:
    """The texts that training is on, run by run."""
    ids, mask = tokenizer.rows(messages, tools)
    assert len(ids) == len(mask)
    runs: list[list[int]] = []
    for place, (id_, on) in enumerate(zip(ids, mask, strict=True)):
        if on and (not place or not mask[place - 1]):
            runs.append([])
        if on:
            runs[-1].append(id_)
    return [tokenizer.decode(run, skip_special_tokens=False) for run in runs]


# Encoding


@pytest.mark.parametrize(("name", "kind"), KINDS)
@settings(quick, max_examples=6)
@given(data=st.data(), tools=TOOLS, prompt=st.booleans())
def test_ids_are_those_of_transformers_where_contents_spell_no_special_token(
    name: str, kind: str, data: Any, tools: Any, prompt: bool
) -> None:
    content = texts(spell_special=False)
    messages = data.draw(conversations(content, name in TEXT_ARGUMENTS, name not in NO_SYSTEM))
    for message in messages:
        if message["role"] == "tool":
            message["content"] = message["content"].replace("<", "(")
    try:
        expected = theirs(name, kind, messages, tools, prompt)
    except Exception:
        with pytest.raises(InvalidArgument):
            of(name, kind).encode_chat(messages, tools, prompt)
    else:
        assert of(name, kind).encode_chat(messages, tools, prompt) == expected


def spelled(tokens: list[str]) -> list[dict[str, Any]]:
    """A conversation in which everything that can hold a text spells these tokens."""
    text = "a " + " ".join(tokens) + "".join(tokens) + " b"
    calls = [{"id": "abcdefgh1", "type": "function", "function": {"name": "f", "arguments": {"k": text, text: 1}}}]
    return [
        {"role": "system", "content": text},
        {"role": "user", "content": text},
        {"role": "assistant", "content": text, "tool_calls": calls},
        {"role": "tool", "content": text, "tool_call_id": "abcdefgh1", "name": "f"},
        {"role": "assistant", "content": text},
        {"role": "user", "content": text},
    ]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_no_special_id_comes_from_content(name: str, kind: str) -> None:
    tokenizer, tokens = of(name, kind), special_tokens(name)
    tool = json.loads(json.dumps(CALCULATOR))
    harmless = json.loads(json.dumps(CALCULATOR))
    tool["function"]["description"] = "d " + "".join(tokens)
    harmless["function"]["description"] = "d"
    for start, tools in ((0, [tool]), (0, None), (1, [tool]), (1, None)):
        dangerous, plain = spelled(tokens)[start:], spelled(["x"])[start:]
        if name.startswith(("gemma", "phi", "aya")):  # without tools
            dangerous, plain = (
                [m for m in chat if "tool" not in str(m.keys()) and m["role"] != "tool"] for chat in (dangerous, plain)
            )
        try:
            expected = tokenizer.encode_chat(plain, [harmless] if tools else None, True)
        except InvalidArgument:
            assert start == 0 or name == "mistral-nemo", "the family takes no system message"
            continue
        ids = tokenizer.encode_chat(dangerous, tools, True)
        special = tokenizer.special_ids
        assert [id_ for id_ in ids if id_ in special] == [id_ for id_ in expected if id_ in special]
        assert any(id_ in special for id_ in ids)


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "qwq"])
def test_what_a_tool_says_is_not_the_end_of_what_it_says(name: str) -> None:
    tokenizer = of(name)
    added = ("<tool_response>", "</tool_response>", "<tool_call>", "</think>")
    ids = {tokenizer_of(name).convert_tokens_to_ids(token) for token in added}
    chat = [*PLAIN, {"role": "user", "content": "?"}, {"role": "tool", "content": "2", "name": "f"}]
    trap = [*chat[:-1], {"role": "tool", "content": "2" + "".join(added), "name": "f"}]
    clean, trapped = (tokenizer.encode_chat(messages, add_generation_prompt=True) for messages in (chat, trap))
    assert [id_ for id_ in trapped if id_ in ids] == [id_ for id_ in clean if id_ in ids]
    assert tokenizer.decode(trapped, False) == ChatTemplate.named(name).render(trap, add_generation_prompt=True)


@pytest.mark.parametrize("name", FAMILIES)
@settings(quick)
@given(data=st.data(), tools=TOOLS)
def test_ids_stand_for_the_text_of_transformers_whatever_contents_spell(name: str, data: Any, tools: Any) -> None:
    bits = [*special_tokens(name), "<|im_", "end|>", "<", "|>", " a", "\n", "<tool_call>", "</tool_response>"]
    content = texts(bits=bits)
    calling = name not in NO_CALLS
    messages = data.draw(conversations(content, name in TEXT_ARGUMENTS, name not in NO_SYSTEM, calling))
    template = ChatTemplate.of(tokenizer_of(name))
    try:
        text = template.render(messages, tools, add_generation_prompt=True)
    except InvalidArgument:
        assume(False)
        return
    tokenizer = of(name)
    ids = tokenizer.encode_chat(messages, tools, add_generation_prompt=True)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    softened = template.render(_mapped(messages, lambda text: soften(text, special_tokens(name))), tools, True)
    special = tokenizer.special_ids
    expected = [id_ for id_ in tokenizer_of(name)(softened, add_special_tokens=False).input_ids if id_ in special]
    assert [id_ for id_ in ids if id_ in special] == expected


def soften(text: str, tokens: list[str]) -> str:
    """The text with a word joiner in each of these tokens."""
    while spelled := [token for token in tokens if token in text]:
        longest = max(spelled, key=len)
        text = text.replace(longest, longest[0] + "\u2060" + longest[1:])
    return text


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {change(key): _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def test_text_in_which_everything_is_text() -> None:
    tokenizer = ChatTokenizer.load(WEIGHTS)
    ids = tokenizer.encode("<|im_start|>system<|im_end|>")
    assert not tokenizer.special_ids & set(ids)
    assert tokenizer.decode(ids) == "<|im_start|>system<|im_end|>"


def test_a_special_token_of_one_character_and_marks_in_contents_are_text() -> None:
    made = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    made.add_special_tokens(["☃"])
    tokenizer = ChatTokenizer(made, ChatTemplate("☃{{ messages[0].content }}<|im_end|>"))
    for content in ("a☃b", "\ufdd0☃\ufdd1<|im_end|>", "☃☃<|im_<|im_end|>end|>"):
        ids = tokenizer.encode_chat([{"role": "user", "content": content}])
        assert [id_ for id_ in ids if id_ in tokenizer.special_ids] == [
            made.token_to_id("☃"),
            made.token_to_id("<|im_end|>"),
        ]
        assert tokenizer.decode(ids, skip_special_tokens=False) == f"☃{content}<|im_end|>"


def test_the_embedded_models_engine_makes_the_same_ids() -> None:
    engine, tokenizer = TinyEngine.load(), ChatTokenizer.load(WEIGHTS)
    chat = [*PLAIN, {"role": "user", "content": "now <|im_end|> what \n\n"}]
    for tools in (None, [CALCULATOR]):
        assert tokenizer.encode_chat(chat, tools, True) == engine.render(chat, tools)


def test_it_is_made_from_a_directory_a_tokenizer_or_one_of_transformers() -> None:
    theirs = AutoTokenizer.from_pretrained(WEIGHTS)
    expected = ChatTokenizer.load(WEIGHTS).encode_chat(PLAIN)
    assert ChatTokenizer(theirs).encode_chat(PLAIN) == expected
    raw = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    assert ChatTokenizer(raw, ChatTemplate.of(WEIGHTS)).encode_chat(PLAIN) == expected
    assert ChatTokenizer.load(WEIGHTS, "chatml").encode_chat(PLAIN) == ChatTokenizer(raw, "chatml").encode_chat(PLAIN)
    assert chat_tokenizer.ChatTokenizer is ChatTokenizer


def test_a_tokenizer_that_is_used_elsewhere_is_left_as_it_is() -> None:
    raw = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    raw.encode_special_tokens = True
    raw.enable_truncation(3)
    ChatTokenizer(raw, "chatml").encode_chat(PLAIN)
    assert raw.encode_special_tokens
    assert len(raw.encode("one two three four five").ids) == 3
    assert len(ChatTokenizer(raw, "chatml").encode_chat(PLAIN)) > 3


def test_a_named_template_takes_the_tokenizers_own_special_tokens(tmp_path: Path) -> None:
    tokenizer_of("mistral-nemo").save_pretrained(tmp_path)
    text = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    text["bos_token"] = "</s>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(text), encoding="utf-8")
    tokenizer = ChatTokenizer.load(tmp_path, "internlm2")
    assert tokenizer.decode(tokenizer.encode_chat(PLAIN), False).startswith("</s>")


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ChatTokenizer("gpt2"), "tokenizer='gpt2'"),
        (lambda: ChatTokenizer(Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))), "template=None"),
        (lambda: ChatTokenizer.load("/nowhere"), "directory='/nowhere'"),
        (lambda: ChatTokenizer.load(WEIGHTS, "qwen9"), "template='qwen9'"),
    ],
)
def test_what_is_no_tokenizer_is_refused_by_name(build: Any, named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        build()


def test_eos_ids_are_the_end_of_turn_and_what_the_settings_name() -> None:
    raw = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    ends = {raw.token_to_id("<|im_end|>"), raw.token_to_id("<|endoftext|>")}
    assert ChatTokenizer.load(WEIGHTS).eos_ids == ends
    assert ChatTokenizer(raw, "chatml").eos_ids == {raw.token_to_id("<|im_end|>")}


# Rows for supervised training


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_training_is_on_answers_and_their_end_of_turn_alone(name: str, kind: str) -> None:
    tokenizer = of(name, kind)
    chat = [*PLAIN, {"role": "user", "content": "And 2 + 2?"}, {"role": "assistant", "content": "It is 4."}]
    runs = said(tokenizer, chat)
    ends = [*(tokenizer.decode([id_], False) for id_ in tokenizer.eos_ids), *["<|end|>"] * (name == "gpt-oss")]
    assert len(runs) == 2
    for run, answer in zip(runs, ("It is 2.", "It is 4."), strict=True):
        run = run.removeprefix("<|channel|>final<|message|>")  # of gpt-oss, whose answers name their channel
        thought, _, after = run.rpartition("</think>")  # which some templates write where a model would have thought
        assert not re.sub(r"<think>|\s", "", thought)
        assert after.strip() in {answer, *(answer + end for end in ends)}
    assert runs[0].strip() != "It is 2." or not ends


def test_training_on_the_embedded_models_row_token_by_token() -> None:
    tokenizer = ChatTokenizer.load(WEIGHTS)
    chat = [{"role": "user", "content": "Hi<|im_end|>"}, {"role": "assistant", "content": "\n\nYou"}]
    ids, mask = tokenizer.rows(chat, [CALCULATOR])
    prompt = tokenizer.encode_chat(chat[:1], [CALCULATOR], add_generation_prompt=True)
    assert ids[: len(prompt)] == prompt
    assert mask == [0] * len(prompt) + [1] * (len(ids) - len(prompt) - 1) + [0]
    assert tokenizer.decode(ids[len(prompt) :], False) == "\n\nYou<|im_end|>\n"


@pytest.mark.parametrize("name", WITH_CALLS)
def test_calls_are_trained_on_and_results_are_not(name: str) -> None:
    tokenizer = of(name)
    function = {"name": "calculator", "arguments": {"expression": "1 + 1"}}
    chat = [
        PLAIN[0],
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "abcdefgh1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "RESULT", "tool_call_id": "abcdefgh1", "name": "calculator"},
        {"role": "assistant", "content": "It is 2."},
    ]
    first, last = said(tokenizer, chat, [CALCULATOR])
    assert "calculator" in first
    assert "1 + 1" in first
    assert "It is 2." in last
    assert "RESULT" not in first + last
    assert "What is" not in first + last


@pytest.mark.parametrize("name", FAMILIES)
@settings(quick)
@given(data=st.data(), tools=TOOLS)
def test_rows_of_random_conversations_stand_for_their_text_and_train_on_each_answer(
    name: str, data: Any, tools: Any
) -> None:
    tokenizer = of(name)
    messages = data.draw(conversations(texts(), False, name not in NO_SYSTEM, calling=False))
    text = ChatTemplate.of(tokenizer_of(name)).render(messages, tools)
    ids, mask = tokenizer.rows(messages, tools)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert len(said(tokenizer, messages, tools)) <= sum(message["role"] == "assistant" for message in messages)
    if name != "gpt-oss":  # whose answers name their channel
        others = tokenizer.special_ids - tokenizer.eos_ids
        assert not any(on for on, id_ in zip(mask, ids, strict=True) if id_ in others)


class OneByOne(ChatTokenizer):
    """A tokenizer that finds each answer by what the template writes if something else is said there alone."""

    def _probe(self, *_: Any) -> None:
        return None


@pytest.mark.parametrize(("name", "kind"), KINDS)
@settings(quick)
@given(data=st.data(), tools=TOOLS)
def test_answers_that_are_found_together_are_where_each_is_found_alone(
    name: str, kind: str, data: Any, tools: Any
) -> None:
    calling = name not in NO_CALLS
    shapes = conversations(texts(), name in TEXT_ARGUMENTS, name not in NO_SYSTEM, calling=calling)
    messages = data.draw(shapes)
    for message in messages:
        if message["role"] == "assistant" and data.draw(st.booleans()):
            message["reasoning_content"] = data.draw(texts())
    alone = OneByOne(tokenizer_of(name, kind))
    try:
        expected = alone.rows(messages, tools)
    except InvalidArgument:
        with pytest.raises(InvalidArgument):
            of(name, kind).rows(messages, tools)
        return
    assert of(name, kind).rows(messages, tools) == expected


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "gpt-oss"])
def test_rows_are_written_a_few_times_whatever_the_number_of_answers(name: str) -> None:
    written = []

    class Counted(ChatTemplate):
        def write(self, messages: Any, *more: Any) -> str:
            written.append(len(messages))
            return super().write(messages, *more)

    tokenizer = tokenizer_of(name)
    template = ChatTemplate.of(tokenizer)
    counted = ChatTokenizer(tokenizer, Counted(template.source, variables=template.variables))
    turn = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "<think>\nHm\n</think>\n\nSo."}]
    counted.rows(turn)
    times = []
    for count in (2, 30):
        written.clear()
        counted.rows(turn * count)
        times.append(len(written))
    assert max(times) < 10


# Prompts that go on from the ids so far


def cut_anew(tokenizer: ChatTokenizer, text: str, seed: int) -> list[int]:
    """Ids of a text that are not those the tokenizer would choose: it is cut at random places first."""
    places = random.Random(seed)
    at, ids = 0, []
    while at < len(text):
        stop = min(len(text), at + places.randint(1, 4))
        ids += tokenizer.encode(text[at:stop])
        at = stop
    return ids


def end_of_turn(tokenizer: ChatTokenizer, name: str) -> list[int]:
    row, mask = tokenizer.rows(PLAIN)
    last = [id_ for id_, on in zip(row, mask, strict=True) if on][-1]
    return [last] if last in tokenizer.special_ids else []


REWRITING = ("deepseek-r1", "deepseek-r1-distill", "glm-4.5", "gpt-oss", "qwen3", "qwq")
EXTENDING = [name for name in FAMILIES if name not in REWRITING]


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "cut off"])
@pytest.mark.parametrize(("name", "kind"), [case for case in KINDS if case[0] in EXTENDING])
def test_the_next_prompt_goes_on_from_sampled_ids_that_are_not_canonical(name: str, kind: str, ended: bool) -> None:
    tokenizer = of(name, kind)
    chat: list[dict[str, Any]] = []
    ids: list[int] = []
    line = "\n" if name == "glm-4" else ""  # whose models write the end of the role's line themselves
    for turn, answer in enumerate((f"{line}It is 2, I think: 你好 <|im_end|>", f"{line}Still {{2}}.", f"{line}Yes!")):
        chat.append({"role": "user", "content": f"What is 1 + 1? ({turn})"})
        prompt = tokenizer.continue_ids(ids, chat) if ids else tokenizer.encode_chat(chat, add_generation_prompt=True)
        assert prompt[: len(ids)] == ids
        if kind == "bytes":
            assert tokenizer.decode(prompt, False) == tokenizer.template.render(chat, add_generation_prompt=True)
        chat.append({"role": "assistant", "content": answer})
        canonical = [id_ for id_, on in zip(*tokenizer.rows([PLAIN[0], chat[-1]]), strict=True) if on]
        canonical = [id_ for id_ in canonical if id_ not in tokenizer.eos_ids]
        sampled = cut_anew(tokenizer, answer, turn) if kind == "bytes" else canonical
        ids = prompt + sampled + (end_of_turn(tokenizer, name) if ended else [])
    assert ids != tokenizer.encode_chat(chat)[: len(ids)] or kind != "bytes"


def test_a_call_that_was_written_with_other_spaces_stays_as_it_was_sampled() -> None:
    tokenizer = of("qwen2.5")
    call = '<tool_call>\n{"name":"calculator",   "arguments":{"expression":"1+1"} }\n</tool_call>'
    chat: list[dict[str, Any]] = [PLAIN[0]]
    prompt = tokenizer.encode_chat(chat, [CALCULATOR], add_generation_prompt=True)
    ids = prompt + cut_anew(tokenizer, call, 1) + end_of_turn(tokenizer, "qwen2.5")
    function = {"name": "calculator", "arguments": {"expression": "1+1"}}
    chat += [
        {
            "role": "assistant",
            "content": [{"type": "text", "text": call}],
            "tool_calls": [{"id": None, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": None, "tool_name": "calculator", "content": [{"type": "text", "text": "2"}]},
    ]
    after = tokenizer.continue_ids(ids, chat, [CALCULATOR])
    assert after[: len(ids)] == ids
    assert tokenizer.decode(after[len(ids) :], False) == (
        "\n<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_call_known_by_its_fields_alone_is_written_by_the_template() -> None:
    tokenizer = of("qwen2.5")
    function = {"name": "calculator", "arguments": {"expression": "1 + 1"}}
    call = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "1 + 1"}}\n</tool_call>'
    ids = tokenizer.encode_chat(PLAIN[:1], None, add_generation_prompt=True) + tokenizer.encode(call)
    chat = [PLAIN[0], {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}, PLAIN[0]]
    assert tokenizer.continue_ids(ids, chat)[: len(ids)] == ids


@pytest.mark.parametrize("name", ["qwen3", "qwq", "deepseek-r1", "deepseek-r1-distill"])
def test_where_the_template_drops_thinking_the_prompt_is_encoded_anew(name: str) -> None:
    tokenizer = of(name)
    prompt = tokenizer.encode_chat(PLAIN[:1], add_generation_prompt=True)
    ids = prompt + tokenizer.encode("<think>\nhm\n</think>\n\nIt is 2.") + end_of_turn(tokenizer, name)
    chat = [PLAIN[0], {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is 2."}, PLAIN[0]]
    after = tokenizer.continue_ids(ids, chat)
    assert after == tokenizer.encode_chat(chat, add_generation_prompt=True)
    assert after[: len(ids)] != ids


def test_thinking_that_the_template_keeps_is_gone_on_from() -> None:
    tokenizer = of("qwen3")
    text = '<think>\nhm\n</think>\n\n<tool_call>\n{"name": "calculator", "arguments": {}}\n</tool_call>'
    ids = tokenizer.encode_chat(PLAIN[:1], add_generation_prompt=True) + tokenizer.encode(text)
    chat = [PLAIN[0], {"role": "assistant", "content": text}, {"role": "tool", "content": "2"}]
    assert tokenizer.continue_ids(ids, chat)[: len(ids)] == ids


def test_ids_of_another_conversation_are_not_gone_on_from() -> None:
    tokenizer = ChatTokenizer.load(WEIGHTS)
    ids = tokenizer.encode_chat(PLAIN)
    other = [{"role": "user", "content": "Else"}, PLAIN[1], PLAIN[0]]
    assert tokenizer.continue_ids(ids, other) == tokenizer.encode_chat(other, add_generation_prompt=True)
    longer = ids + tokenizer.encode_chat([*PLAIN, *PLAIN])
    assert tokenizer.continue_ids(longer, [*PLAIN, PLAIN[0]])[: len(longer)] != longer


@pytest.mark.parametrize("name", FAMILIES)
@settings(quick)
@given(data=st.data(), tools=TOOLS, seed=st.integers(0, 9), ended=st.booleans())
def test_the_next_prompt_extends_the_ids_so_far_or_the_template_rewrote_them(
    name: str, data: Any, tools: Any, seed: int, ended: bool
) -> None:
    tokenizer = of(name)
    template, text_arguments = tokenizer.template, name in TEXT_ARGUMENTS
    messages = data.draw(conversations(texts(), text_arguments, name not in NO_SYSTEM, name not in NO_CALLS))
    last = max((place for place, m in enumerate(messages[:-1]) if m["role"] == "assistant"), default=None)
    assume(last is not None)
    assert last is not None
    for message in messages[: last + 1]:
        if message["role"] == "assistant" and message["content"]:
            message.pop("tool_calls", None)
    try:
        whole = template.render(messages, tools, add_generation_prompt=True)
        prompt = tokenizer.encode_chat(messages[:last], tools, add_generation_prompt=True)
    except InvalidArgument:
        assume(False)
        return
    ids = prompt + cut_anew(tokenizer, messages[last]["content"], seed)
    ids += end_of_turn(tokenizer, name) if ended else []
    after = tokenizer.continue_ids(ids, messages, tools)
    if after[: len(ids)] == ids:
        assert tokenizer.decode(after, False) == whole
    else:
        assert after == tokenizer.encode_chat(messages, tools, add_generation_prompt=True)
        assert not whole.startswith(tokenizer.decode(ids, False))
