"""Meta templates write what the models' own chat templates write, wherever both can."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lagentlike.errors import InvalidArgument
from lagentlike.llms import (
    CHATML_META,
    GEMMA_META,
    GLM4_META,
    INTERNLM2_META,
    LLAMA2_META,
    LLAMA3_META,
    PHI3_META,
    VICUNA_META,
)
from lagentlike.llms.meta import render
from lagentlike.prompts.chat.template import ChatTemplate

# The models' own chat templates; what begins a sequence is the tokenizer's in a meta template.
OWN: dict[str, tuple[Any, str]] = {
    "internlm2": (INTERNLM2_META, "<s>"),
    "chatml": (CHATML_META, ""),
    "qwen2.5": (CHATML_META, ""),
    "qwen3-instruct-2507": (CHATML_META, ""),
    "llama-3": (LLAMA3_META, "<|begin_of_text|>"),
    "phi-3": (PHI3_META, ""),
    "gemma-2": (GEMMA_META, "<bos>"),
    "glm-4": (GLM4_META, "[gMASK]<sop>"),
}
own = pytest.mark.parametrize("name", OWN)

texts = st.text(st.characters(codec="utf-8", exclude_characters="<>|[]", exclude_categories=["Cc", "Cs"]), min_size=1)
words = texts.map(str.strip).filter(bool)
rounds = st.lists(st.tuples(words, words), max_size=4)


def conversation(system: str | None, before: list[tuple[str, str]], last: str) -> list[dict[str, str]]:
    said = [{"role": "system", "content": system}] if system else []
    for asked, answered in before:
        said += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*said, {"role": "user", "content": last}]


def by_template(name: str, messages: list[dict[str, str]]) -> str:
    template = ChatTemplate.named(name)
    given_ = {"bos_token": OWN[name][1]} if OWN[name][1] not in ("", "[gMASK]<sop>") else {}
    text = template.with_variables(given_).render(messages, add_generation_prompt=True)
    return text.removeprefix(OWN[name][1])


@own
@settings(deadline=None, max_examples=50)
@given(system=words, before=rounds, last=words)
def test_any_conversation_is_written_as_the_models_own_template_does(
    name: str, system: str, before: list[tuple[str, str]], last: str
) -> None:
    messages = conversation(None if name == "gemma-2" else system, before, last)
    assert render(messages, OWN[name][0]) == by_template(name, messages)


@pytest.mark.parametrize("name", sorted(OWN.keys() - {"qwen2.5"}))  # which has a system prompt of its own
def test_a_conversation_without_a_system_prompt_too(name: str) -> None:
    messages = conversation(None, [("Hi", "Hello!")], "Bye")
    assert render(messages, OWN[name][0]) == by_template(name, messages)


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("Be kind.", "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] Bye [/INST]"),
        (None, "<s>[INST] Hi [/INST] Hello! </s><s>[INST] Bye [/INST]"),
    ],
)
def test_llama_2_is_written_as_meta_published_it(system: str | None, expected: str) -> None:
    assert render(conversation(system, [("Hi", "Hello!")], "Bye"), LLAMA2_META) == expected


def test_vicuna_is_written_as_fastchat_published_it() -> None:
    system = "A chat between a user and an assistant."
    expected = f"{system} USER: Hi ASSISTANT: Hello!</s>USER: Bye ASSISTANT:"
    assert render(conversation(system, [("Hi", "Hello!")], "Bye"), VICUNA_META) == expected


@pytest.mark.parametrize(
    "meta", [INTERNLM2_META, CHATML_META, LLAMA2_META, LLAMA3_META, PHI3_META, GEMMA_META, GLM4_META]
)
def test_each_has_a_form_for_results(meta: Any) -> None:
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "f()"}]
    assert "42" in render([*messages, {"role": "environment", "content": "42"}], meta)


def test_a_role_that_is_not_known_is_named() -> None:
    with pytest.raises(InvalidArgument, match="role='system': the meta template knows user, environment, assistant"):
        render([{"role": "system", "content": "x"}], GEMMA_META)
