"""Chat templates give the text that transformers gives, for every family."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lagentlike.errors import InvalidArgument
from lagentlike.llms.tiny import chat as tiny_chat
from lagentlike.llms.tiny.engine import WEIGHTS
from lagentlike.prompts.chat import ChatTemplate
from lagentlike.rollouts import templates
from lagentlike.trajectory import as_parts

from .families import CALCULATOR, conversations, FAMILIES, NO_SYSTEM, SEARCH, TEXT_ARGUMENTS, texts, tokenizer_of, TOOLS

CALLS: list[dict[str, Any]] = [
    {"role": "user", "content": "What is 1 + 1, and who said so? 你好 <|im_end|>"},
    {
        "role": "assistant",
        "content": "I shall look.",
        "tool_calls": [
            {
                "id": "abcdefgh1",
                "type": "function",
                "function": {"name": "calculator", "arguments": {"expression": "1 + 1"}},
            }
        ],
    },
    {"role": "tool", "content": "2", "tool_call_id": "abcdefgh1", "name": "calculator"},
    {"role": "assistant", "content": "It is 2."},
    {"role": "user", "content": "Thanks."},
]


def theirs(name: str, messages: Any, tools: Any, prompt: bool) -> str | Exception:
    tokenizer = tokenizer_of(name)
    try:
        return str(tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=prompt, tokenize=False))
    except Exception as error:
        return error


def ours(template: ChatTemplate, messages: Any, tools: Any, prompt: bool) -> str | InvalidArgument:
    try:
        return template.render(messages, tools, add_generation_prompt=prompt)
    except InvalidArgument as error:
        return error


def assert_same(name: str, messages: Any, tools: Any, prompt: bool) -> None:
    expected, written = theirs(name, messages, tools, prompt), ours(ChatTemplate.named(name), messages, tools, prompt)
    if isinstance(expected, Exception):
        assert isinstance(written, InvalidArgument), f"transformers refuses it: {expected!r}"
        assert str(expected) in str(written)
    else:
        assert written == expected


def in_form(name: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with the arguments of calls in the form that transformers must be given for this family."""
    copied = json.loads(json.dumps(messages))
    for message in copied if name in TEXT_ARGUMENTS else ():
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return list(copied)


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("tools", [None, [CALCULATOR, SEARCH]], ids=["bare", "tools"])
@pytest.mark.parametrize("name", FAMILIES)
def test_text_is_that_of_transformers(name: str, tools: Any, prompt: bool) -> None:
    for stop in range(1, len(CALLS) + 1):
        assert_same(name, in_form(name, CALLS[:stop]), tools, prompt)
    assert_same(name, [{"role": "system", "content": "Be <b>brief</b>."}, *in_form(name, CALLS)], tools, prompt)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_writes_questions_and_answers(name: str) -> None:
    chat = [*CALLS[:1], *CALLS[3:]]
    written = ChatTemplate.named(name).render(chat, add_generation_prompt=True)
    assert all(message["content"] in written for message in chat)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), tools=TOOLS, prompt=st.booleans())
def test_text_of_random_conversations_is_that_of_transformers(name: str, data: Any, tools: Any, prompt: bool) -> None:
    system = name not in NO_SYSTEM or data.draw(st.booleans())
    messages = data.draw(conversations(texts(), name in TEXT_ARGUMENTS, system))
    assert_same(name, messages, tools, prompt)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_shape_of_trajectories_gives_the_same_text(name: str) -> None:
    template, chat = ChatTemplate.named(name), in_form(name, CALLS)
    if isinstance(ours(template, chat, None, False), InvalidArgument):  # a family without tools
        chat = [*chat[:1], *chat[3:]]
    written = template.render(chat, [CALCULATOR], add_generation_prompt=True)
    assert template.render([as_parts(message) for message in chat], [CALCULATOR], add_generation_prompt=True) == written


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith(("qwen", "llama", "deepseek-r1"))])
def test_arguments_as_json_text_and_as_a_dict_give_the_same_text(name: str) -> None:
    as_text = json.loads(json.dumps(CALLS))
    for call in as_text[1]["tool_calls"]:
        call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    template = ChatTemplate.named(name)
    assert ours(template, as_text, [CALCULATOR], True) == ours(template, CALLS, [CALCULATOR], True)


def test_a_field_that_is_none_and_no_calls_are_as_good_as_missing() -> None:
    bare = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    padded = [bare[0], {**bare[1], "tool_calls": [], "name": None, "reasoning": None}]
    for name in FAMILIES:
        assert ChatTemplate.named(name).render(padded) == ChatTemplate.named(name).render(bare)


def test_messages_are_not_changed() -> None:
    before = json.dumps(CALLS)
    ChatTemplate.named("deepseek-r1").render(CALLS)
    assert json.dumps(CALLS) == before


def test_a_template_that_refuses_gives_its_own_words() -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    with pytest.raises(InvalidArgument, match=r"ChatTemplate\('gemma-2'\) refuses them: System role not supported"):
        ChatTemplate.named("gemma-2").render(chat)


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "messages"),
        ("hi", "messages"),
        ([{"content": "no role"}], r"messages\[0\]"),
        ([{"role": "user", "content": object()}], "content"),
    ],
)
def test_what_is_no_conversation_is_refused_by_name(messages: Any, named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        ChatTemplate.named("chatml").render(messages)


def test_variables_reach_the_template() -> None:
    template, chat = ChatTemplate.named("qwen3"), CALLS[:1]
    assert template.render(chat, add_generation_prompt=True, enable_thinking=False).endswith("</think>\n\n")
    expected = tokenizer_of("qwen3").apply_chat_template(
        chat, add_generation_prompt=True, enable_thinking=False, tokenize=False
    )
    assert template.render(chat, add_generation_prompt=True, enable_thinking=False) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0] | tojson(indent=2) }}",
        "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
        "{% set ns = namespace(self=1) %}{{ ns.self }}{{ dict(a=1) }}",
        "{% generation %}{{ messages[0].content }}\n{% endgeneration %}x",
        "  {% if true %}\n  a\n  {% endif %}\n",
        "{{ strftime_now('%Y') }}",
        "{{ messages[0].reasoning_content }}{{ messages[0].thinking }}",
        "{{ messages.append(1) }}",
        "{{ messages.__class__ }}",
        "{{ messages[0].content.__class__.__mro__ }}",
        "{% set ns = namespace(_x=1) %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ dict.__class__ }}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
    ],
)
def test_the_sandbox_is_that_of_transformers(source: str) -> None:
    messages = [{"role": "user", "content": "<&>é", "reasoning": "r"}, {"role": "user", "content": "2"}]
    tokenizer = tokenizer_of("chatml")
    try:
        expected = tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False)
    except Exception:
        with pytest.raises(InvalidArgument):
            ChatTemplate(source).render(messages)
    else:
        assert ChatTemplate(source).render(messages) == expected


def test_the_date_is_todays() -> None:
    written = ChatTemplate("{{ strftime_now('%d %b %Y') }}").render(CALLS[:1])
    assert written == datetime.now().strftime("%d %b %Y")  # noqa: DTZ005  # local time, as transformers has it


def test_the_embedded_models_own_template_and_its_python_twin_give_one_text() -> None:
    template = ChatTemplate.of(WEIGHTS)
    for tools in (None, [CALCULATOR, SEARCH]):
        for prompt in (False, True):
            for stop in range(1, len(CALLS) + 1):
                twin = tiny_chat.render(CALLS[:stop], tools, prompt)
                assert template.render(CALLS[:stop], tools, prompt) == twin


@settings(max_examples=40, deadline=None, derandomize=True)
@given(messages=conversations(texts(), False), tools=TOOLS, prompt=st.booleans(), as_text=st.booleans())
def test_the_embedded_models_template_and_twin_agree_on_random_conversations(
    messages: Any, tools: Any, prompt: bool, as_text: bool
) -> None:
    for message in messages if as_text else ():
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    assert ChatTemplate.of(WEIGHTS).render(messages, tools, prompt) == tiny_chat.render(messages, tools, prompt)


def test_a_template_is_read_from_a_tokenizer_and_from_its_directory(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("llama-3.1")
    tokenizer.save_pretrained(tmp_path / "new")
    (tmp_path / "old").mkdir()
    config = {"chat_template": tokenizer.chat_template, "bos_token": {"content": tokenizer.bos_token}}
    (tmp_path / "old" / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    expected = tokenizer.apply_chat_template(CALLS, tokenize=False)
    for source in (tokenizer, tmp_path / "new", str(tmp_path / "old")):
        assert ChatTemplate.of(source).render(CALLS) == expected


def test_of_several_templates_calls_with_tools_take_the_one_for_tools(tmp_path: Path) -> None:
    several = {"default": "plain", "tool_use": "with {{ tools | length }} tools"}
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    tokenizer.chat_template = several
    tokenizer.save_pretrained(tmp_path)
    for template in (ChatTemplate(several), ChatTemplate.of(tmp_path)):
        assert template.render(CALLS[:1]) == "plain"
        assert template.render(CALLS[:1], [CALCULATOR]) == "with 1 tools"


def test_a_tokenizer_without_a_template_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no chat template"):
        ChatTemplate.of(tmp_path)
    with pytest.raises(InvalidArgument, match="no such directory"):
        ChatTemplate.of(tmp_path / "missing")


def test_a_name_that_does_not_exist_is_answered_with_one_that_does() -> None:
    with pytest.raises(InvalidArgument, match=r"did you mean 'qwen2\.5'"):
        ChatTemplate.named("qwen2,5")


def test_a_registered_template_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChatTemplate, "_registered", {})
    ChatTemplate.register("shout", "{{ bos_token }}{{ messages[0].content | upper }}", bos_token="<s>")
    assert "shout" in ChatTemplate.names()
    assert ChatTemplate.named("shout").render([{"role": "user", "content": "hi"}]) == "<s>HI"
    with pytest.raises(InvalidArgument, match="no Jinja template"):
        ChatTemplate.register("broken", "{% if %}")


def test_the_name_in_rollouts_is_this_class() -> None:
    assert templates.ChatTemplate is ChatTemplate


def test_there_are_more_than_twelve_families() -> None:
    sources = {str(ChatTemplate.named(name).source) for name in ChatTemplate.names()}
    assert len(sources) > 12


def test_jinja_and_transformers_are_loaded_by_rendering_alone() -> None:
    code = (
        "import sys\n"
        "from lagentlike.rollouts import ChatTemplate, ChatTokenizer\n"
        "assert 'jinja2' not in sys.modules\n"
        "ChatTemplate.named('chatml').render([{'role': 'user', 'content': 'Hi'}])\n"
        "assert 'jinja2' in sys.modules\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


_ROUND: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 1?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "calc", "arguments": {"e": "1+1"}}}],
    },
    {"role": "tool", "content": "2", "name": "calc"},
    {"role": "assistant", "content": "It is 2."},
    {"role": "user", "content": "Thanks."},
]
_OFFERED = [{"type": "function", "function": {"name": "calc", "description": "计算"}}]


_DEEPSEEK_V3 = (
    "<｜begin▁of▁sentence｜>Be brief.<｜User｜>1 + 1?<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
    'function<｜tool▁sep｜>calc\n```json\n{"e": "1+1"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
    "<｜end▁of▁sentence｜><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>2<｜tool▁output▁end｜>"
    "<｜tool▁outputs▁end｜>It is 2.<｜end▁of▁sentence｜><｜User｜>Thanks.<｜Assistant｜>"
)
_GLM_4 = (
    "[gMASK]<sop><|system|>\n你是一个名为 ChatGLM 的人工智能助手。"
    "你是基于智谱AI训练的语言模型 GLM-4 模型开发的，你的任务是针对用户的问题和要求提供适当的答复和支持。"
    '\n\n# 可用工具\n## calc\n\n{\n    "name": "calc",\n    "description": "计算"\n}\n'
    "在调用上述函数时，请使用 Json 格式表示调用的参数。<|system|>\nBe brief.<|user|>\n1 + 1?<|assistant|>calc\n"
    '{"e": "1+1"}<|observation|>\n2<|assistant|>\nIt is 2.<|user|>\nThanks.<|assistant|>'
)


@pytest.mark.parametrize(
    ("name", "tools", "wanted"), [("deepseek-v3", None, _DEEPSEEK_V3), ("glm-4", _OFFERED, _GLM_4)]
)
def test_templates_that_were_written_here_give_the_text_of_the_models_own(name: str, tools: Any, wanted: str) -> None:
    assert ChatTemplate.named(name).render(_ROUND, tools, add_generation_prompt=True) == wanted


def test_phi_4_writes_turns_and_refuses_calls() -> None:
    template, chat = ChatTemplate.named("phi-4"), [*_ROUND[:2], *_ROUND[4:]]
    assert template.render(chat, add_generation_prompt=True) == (
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>1 + 1?<|im_end|>"
        "<|im_start|>assistant<|im_sep|>It is 2.<|im_end|><|im_start|>user<|im_sep|>Thanks.<|im_end|>"
        "<|im_start|>assistant<|im_sep|>"
    )
    with pytest.raises(InvalidArgument, match="no form for tool calls"):
        template.render(_ROUND)
