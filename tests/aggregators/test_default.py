"""What a model is sent: the memory, rendered once, and as if it had been rendered from scratch each time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, RuleBasedStateMachine

from lagentlike.agents import Agent
from lagentlike.aggregators import BudgetAggregator, DefaultAggregator, InternLMToolAggregator
from lagentlike.errors import InvalidArgument
from lagentlike.llms import ScriptedLLM
from lagentlike.memory import Memory
from lagentlike.prompts import MixedToolParser, PluginParser, PromptTemplate, StrParser, ToolParser
from lagentlike.schema import (
    ActionReturn,
    ActionStatusCode,
    AgentMessage,
    ChatMessage,
    FunctionCall,
    ToolCall,
    ToolResult,
)


def remembered(*messages: AgentMessage | str, **options: Any) -> Memory:
    memory = Memory(**options)
    memory.add(list(messages))
    return memory


def bot(content: Any, **fields: Any) -> AgentMessage:
    return AgentMessage(sender="bot", content=content, **fields)


def plain(messages: Any) -> Any:
    return json.loads(json.dumps(messages))


# How messages look


def test_own_messages_are_the_assistants_and_all_others_the_users() -> None:
    memory = remembered("hi", bot("hello"), AgentMessage(sender="critic", content="better"))
    assert DefaultAggregator().aggregate(memory, "bot") == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "better"},
    ]


def test_consecutive_user_messages_are_merged() -> None:
    memory = remembered("a", AgentMessage(sender="x", content="b"), bot("c"), bot("d"), "e")
    assert DefaultAggregator().aggregate(memory, "bot") == [
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "e"},
    ]


def test_a_system_message_is_not_merged_with_what_follows() -> None:
    messages = DefaultAggregator().aggregate(remembered("a"), "bot", None, "system")
    assert [message["role"] for message in messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (None, ""),
        (5, "5"),
        ({"ä": [1]}, '{"ä": [1]}'),
        (FunctionCall("f", {"a": 1}), '{"name": "f", "parameters": {"a": 1}}'),
        (ActionReturn(result=[{"type": "text", "content": "4"}]), "4"),
        (ActionReturn(state=ActionStatusCode.API_ERROR, errmsg="no"), "no"),
        ([{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:"}}],
         [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:"}}]),
        ([], "[]"),
    ],
)  # fmt: skip
def test_any_content_can_be_shown(content: Any, shown: Any) -> None:
    messages = DefaultAggregator().aggregate(remembered(AgentMessage(content=content)), "bot")
    assert messages == [{"role": "user", "content": shown}]


def test_texts_and_content_parts_are_merged_as_parts() -> None:
    memory = remembered("a", AgentMessage(content=[{"type": "image_url", "image_url": {"url": "u"}}]))
    assert DefaultAggregator().aggregate(memory, "bot")[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "u"}},
    ]


def test_tool_calls_and_results_have_their_own_form() -> None:
    memory = remembered(
        bot("", tool_calls=[ToolCall("f", {"a": 1}, id="1"), ToolCall("g", "{", id="2")]),
        AgentMessage(
            sender="tools", content="x", tool_results=[ToolResult(True, "out", id="1", name="f"),
                                                       ToolResult(False, error="bad", id="2", name="g")]
        ),
    )  # fmt: skip
    assert DefaultAggregator().aggregate(memory, "bot") == [
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{"}},
        ]},
        {"role": "tool", "tool_call_id": "1", "name": "f", "content": "out"},
        {"role": "tool", "tool_call_id": "2", "name": "g", "content": "Error: bad"},
    ]  # fmt: skip


def test_an_answer_goes_back_in_its_providers_own_form_too() -> None:
    thought = {"type": "thinking", "thinking": "2 + 2", "signature": "Eq"}
    memory = remembered("hi", bot("4", blocks=[thought, {"type": "text", "text": "4"}]))
    twin = Memory()
    twin.load(json.loads(json.dumps(memory.save())))
    sent = DefaultAggregator().aggregate(twin, "bot")[1]
    assert sent["blocks"] == [thought, {"type": "text", "text": "4"}]
    sent["blocks"][0]["signature"] = "forged"
    assert twin.get_memory()[1].blocks[0]["signature"] == "Eq"  # type: ignore[index]


# The system prompt


@pytest.mark.parametrize(
    ("instruction", "messages"),
    [
        ("Be brief.", [{"role": "system", "content": "Be brief."}]),
        (PromptTemplate("Be {x}."), [{"role": "system", "content": "Be {x}."}]),
        ({"role": "developer", "content": "x"}, [{"role": "developer", "content": "x"}]),
        (["a", {"role": "user", "content": "b"}],
         [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]),
        (None, []),
        ("", []),
    ],
)  # fmt: skip
def test_a_system_prompt_has_many_forms(instruction: Any, messages: list[Any]) -> None:
    assert DefaultAggregator().aggregate(Memory(), "bot", None, instruction) == messages


@pytest.mark.parametrize("instruction", [5, {"role": "system"}, [5]])
def test_a_system_prompt_that_is_none_is_refused(instruction: Any) -> None:
    with pytest.raises(InvalidArgument, match="system_instruction="):
        DefaultAggregator().aggregate(Memory(), "bot", None, instruction)


def test_it_has_lagents_spelling_too() -> None:
    aggregator = DefaultAggregator()
    assert aggregator.aggregate_system_intruction("x") == aggregator.aggregate_system_instruction("x")


def test_the_parsers_instruction_follows_the_system_prompt() -> None:
    parser = ToolParser("code", template="Write code.")
    messages = DefaultAggregator().aggregate(Memory(), "bot", parser, "Be brief.")
    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Write code.", "name": "code"},
    ]
    mixed = MixedToolParser(template="Tools.", parsers=[PluginParser(template="P")])
    assert [m["content"] for m in DefaultAggregator().aggregate(Memory(), "bot", mixed)] == ["Tools.", "P"]


def test_a_prompt_that_is_changed_is_rendered_anew() -> None:
    agent = Agent(ScriptedLLM(lambda messages, params: "r"), [{"role": "system", "content": "one"}])
    agent("hi")
    agent.template[0]["content"] = "two"
    agent("hi")
    agent.template = PromptTemplate("three")
    agent("hi")
    agent.template.template = "four"
    agent("hi")
    asked = [request.messages[0]["content"] for request in agent.llm.requests]
    assert asked == ["one", "two", "three", "four"]


def test_examples_that_are_added_later_are_shown() -> None:
    aggregator = InternLMToolAggregator(few_shot=[{"role": "user", "content": "q"}])
    aggregator.aggregate(Memory(), "bot")
    aggregator.few_shot.append({"role": "assistant", "content": "a"})
    assert [m["content"] for m in aggregator.aggregate(Memory(), "bot")] == ["q", "a"]


# InternLM's form


def test_tools_and_other_agents_are_the_environment() -> None:
    aggregator = InternLMToolAggregator(environment_begin="<", environment_end=">", user_names=["user", "boss"])
    memory = remembered(
        "hi", AgentMessage(sender="boss", content="now"), bot("x"), AgentMessage(sender="t", content="4")
    )
    assert aggregator.aggregate(memory, "bot") == [
        {"role": "user", "content": "hi\nnow"},
        {"role": "assistant", "content": "x"},
        {"role": "environment", "content": "<4>"},
    ]


def test_a_call_that_a_stop_word_cut_is_shown_whole() -> None:
    parser = ToolParser("code", begin="```python\n", end="\n```\n")
    text = "so\n```python\n1"
    message = bot(text, formatted=parser.parse_response(text))
    messages = InternLMToolAggregator().aggregate(remembered(message), "bot", parser)
    assert messages == [{"role": "assistant", "content": "so\n```python\n1\n```\n"}]


@pytest.mark.parametrize("formatted", [None, {"tool_type": None, "thought": "", "action": None}, {"tool_type": "x"}, 5])
def test_an_answer_without_a_whole_call_is_shown_as_it_was_written(formatted: Any) -> None:
    parser = ToolParser("code")
    messages = InternLMToolAggregator().aggregate(remembered(bot("as is", formatted=formatted)), "bot", parser)
    assert messages == [{"role": "assistant", "content": "as is"}]


def test_a_system_message_in_memory_takes_the_place_of_the_agents_own() -> None:
    class WithSystem(DefaultAggregator):
        def render(self, message: AgentMessage, name: str, parser: StrParser | None) -> list[dict[str, Any]]:
            if message.sender == "system":
                return [{"role": "system", "content": message.content}]
            return super().render(message, name, parser)

    own = AgentMessage(content="Be long.", sender="system")
    assert WithSystem().aggregate(remembered(own, "a"), "bot", None, "Be brief.") == [
        {"role": "system", "content": "Be long."},
        {"role": "user", "content": "a"},
    ]
    assert [m["content"] for m in WithSystem().aggregate(remembered("a"), "bot", None, "Be brief.")] == [
        "Be brief.",
        "a",
    ]


# Rendered once, as if from scratch


def test_a_message_is_rendered_once() -> None:
    class Counting(DefaultAggregator):
        def render(self, message: AgentMessage, name: str, parser: StrParser | None) -> list[dict[str, Any]]:
            rendered.append(message.content)
            return super().render(message, name, parser)

    rendered: list[Any] = []
    agent = Agent(ScriptedLLM(lambda messages, params: "r"), aggregator=Counting())
    for turn in range(50):
        agent(str(turn))
    assert len(rendered) == 99
    first, second = (agent.aggregator.aggregate(agent.memory.get(0), agent.name) for _ in range(2))
    assert all(one is two for one, two in zip(first, second, strict=True))


def test_an_edited_message_is_rendered_anew() -> None:
    aggregator, memory = DefaultAggregator(), remembered("a", bot("b"))
    aggregator.aggregate(memory, "bot", None, "system")[0]["content"] = "spoilt"
    aggregator.aggregate(memory, "bot", None, "system")[1]["content"] = "spoilt"
    memory.add("c")
    assert [m["content"] for m in aggregator.aggregate(memory, "bot", None, "system")] == ["system", "a", "b", "c"]


def test_editing_what_is_sent_does_not_reach_memory() -> None:
    aggregator = DefaultAggregator()
    memory = remembered(AgentMessage(content=[{"type": "text", "text": "a"}]))
    aggregator.aggregate(memory, "bot")[0]["content"][0]["text"] = "spoilt"
    assert memory[0].content == [{"type": "text", "text": "a"}]


def test_a_list_of_messages_may_be_changed_by_who_asked_for_it() -> None:
    aggregator, memory = DefaultAggregator(), remembered("a", bot("b"))
    aggregator.aggregate(memory, "bot").clear()
    assert len(aggregator.aggregate(memory, "bot")) == 2


def test_aggregators_names_and_parsers_have_views_of_their_own() -> None:
    memory = remembered("a", bot("b"), AgentMessage(sender="t", content="c"))
    one, other = DefaultAggregator(), InternLMToolAggregator()
    for _ in range(2):
        assert [m["role"] for m in one.aggregate(memory, "bot")] == ["user", "assistant", "user"]
        assert [m["role"] for m in one.aggregate(memory, "t")] == ["user", "assistant"]
        assert [m["role"] for m in other.aggregate(memory, "bot")] == ["user", "assistant", "environment"]


@pytest.mark.parametrize("aggregator", [DefaultAggregator(), BudgetAggregator(max_messages=3)])
def test_a_memory_of_its_own_kind_says_what_is_shown(aggregator: DefaultAggregator) -> None:
    class Discreet(Memory):
        def get_memory(self, recent_n: Any = None, filter_func: Any = None) -> list[AgentMessage]:
            told = [message for message in super().get_memory(recent_n, filter_func) if message.content != "secret"]
            return [AgentMessage(content="before"), *told]

    memory = Discreet()
    memory.add(["secret", bot("noted")])
    assert aggregator.aggregate(memory, "bot") == [
        {"role": "user", "content": "before"},
        {"role": "assistant", "content": "noted"},
    ]
    memory.add(["secret", bot("again")])
    assert [message["content"] for message in aggregator.aggregate(memory, "bot")] == ["before", "noted", "again"]


@pytest.mark.parametrize("messages", [[], None, [AgentMessage(content="x")]])
def test_it_takes_a_memory(messages: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"messages=.*agent\.memory\.get"):
        DefaultAggregator().aggregate(messages, "bot")


class FewshotAggregator(DefaultAggregator):
    """A subclass that renders all of it itself, as the tutorial has it."""

    def __init__(self, few_shot: list[dict[str, Any]] | None = None) -> None:
        self.few_shot = few_shot or []

    def aggregate(
        self, messages: Memory, name: str, parser: Any = None, system_instruction: Any = None
    ) -> list[dict[str, Any]]:
        _message: list[dict[str, Any]] = []
        if system_instruction:
            _message.extend(self.aggregate_system_instruction(system_instruction))
        _message.extend(self.few_shot)
        for message in messages.get_memory():
            if message.sender == name:
                _message.append({"role": "assistant", "content": str(message.content)})
            elif _message and _message[-1]["role"] == "user":
                _message[-1]["content"] += message.content
            else:
                _message.append({"role": "user", "content": message.content})
        return _message


def test_a_subclass_may_render_everything_itself() -> None:
    shots = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    agent = Agent(ScriptedLLM(lambda messages, params: "r"), "system", aggregator=FewshotAggregator(shots))
    agent("one", "two")
    agent("three")
    assert [m["content"] for m in agent.llm.requests[1].messages] == ["system", "q", "a", "onetwo", "r", "three"]


class Renderings(RuleBasedStateMachine):
    """Any mix of turns, forks, going back, deletions and edits: what is kept is what a fresh rendering gives."""

    @initialize(recent_n=st.none() | st.integers(0, 5), internlm=st.booleans())
    def begin(self, recent_n: int | None, internlm: bool) -> None:
        self.make = InternLMToolAggregator if internlm else DefaultAggregator
        self.aggregator = self.make()
        self.parser = PluginParser()
        self.memories: list[Memory] = [Memory(recent_n)]
        self.marks: list[tuple[Memory, Any]] = []
        self.count = 0

    @rule(which=st.integers(0, 50), sender=st.sampled_from(["user", "bot", "tool", "peer"]), kind=st.integers(0, 3))
    def add(self, which: int, sender: str, kind: int) -> None:
        self.count += 1
        message = AgentMessage(sender=sender, content=f"message {self.count}")
        if kind == 1:
            message.content = [{"type": "text", "text": message.content}]
        elif kind == 2 and sender == "bot":
            message.tool_calls = [ToolCall("f", {}, id=str(self.count))]
        elif kind == 3 and sender == "tool":
            message.tool_results = [ToolResult(True, "x", id=str(self.count), name="f")]
        self.memories[which % len(self.memories)].add(message)

    @rule(which=st.integers(0, 50))
    def fork(self, which: int) -> None:
        self.memories.append(self.memories[which % len(self.memories)].fork())

    @rule(which=st.integers(0, 50))
    def mark(self, which: int) -> None:
        memory = self.memories[which % len(self.memories)]
        self.marks.append((memory, memory.mark()))

    @rule(which=st.integers(0, 50))
    def rewind(self, which: int) -> None:
        if self.marks:
            memory, mark = self.marks[which % len(self.marks)]
            memory.rewind(mark)

    @rule(which=st.integers(0, 50), index=st.integers(0, 50))
    def delete(self, which: int, index: int) -> None:
        memory = self.memories[which % len(self.memories)]
        if len(memory):
            memory.delete(index % len(memory))

    @rule(which=st.integers(0, 50))
    def look(self, which: int) -> None:
        self.aggregator.aggregate(self.memories[which % len(self.memories)], "bot", self.parser)

    @rule(which=st.integers(0, 50), index=st.integers(0, 50), removes=st.booleans())
    def edit(self, which: int, index: int, removes: bool) -> None:
        messages = self.aggregator.aggregate(self.memories[which % len(self.memories)], "bot", self.parser)
        if messages and isinstance(messages[index % len(messages)], ChatMessage):
            if removes:
                messages[index % len(messages)].pop("content", None)
            else:
                messages[index % len(messages)]["content"] = "edited"

    @invariant()
    def what_is_kept_is_what_a_fresh_rendering_gives(self) -> None:
        for memory in self.memories[::3]:  # some are looked at only later
            kept = self.aggregator.aggregate(memory, "bot", self.parser)
            fresh = self.make().aggregate(memory.fork(), "bot", self.parser)
            assert plain(kept) == plain(fresh)

    def teardown(self) -> None:
        for memory in getattr(self, "memories", ()):
            again = Memory(memory.recent_n)
            again.load(memory.save())
            kept = self.aggregator.aggregate(memory, "bot", self.parser)
            assert plain(kept) == plain(self.make().aggregate(again, "bot", self.parser))


TestRenderings = Renderings.TestCase
TestRenderings.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
