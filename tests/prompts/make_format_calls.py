"""Writes format_calls.jsonl: replies in the formats that `tool_format` knows, put together from pieces.

Run by hand: `python -m tests.prompts.make_format_calls`. It imports nothing of the parsers that the corpus tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .make_tool_calls import case, Format, replies

CORPUS = Path(__file__).with_name("format_calls.jsonl")

ADD = {"a": 1, "b": 2}
DEEPSEEK = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
)
KIMI = (
    "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<|tool_calls_section_end|>",
)


def say(marks: str) -> dict[str, Any]:
    """Arguments that hold quotes, thinking, a fence, and a format's own marks."""
    text = f'a "quoted" word, 5" wide, `code`, {marks} \n </think> <think> and\n```\na fence\n```'
    return {"text": text}


def named(name: str, arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


QWEN_SAY = say("<tool_call> </tool_call> <function=x> <parameter=y> </parameter> </function> is it")
GLM_SAY = say("<tool_call> </tool_call> <arg_key> </arg_key> <arg_value> </arg_value> is it")
MISTRAL_SAY = say("[TOOL_CALLS] [TOOL_CALLS]add[ARGS]{} [/INST] ]}")
LLAMA_SAY = say('<|python_tag|> {"name": "add", "parameters": {}}; <|eom_id|> ]}')
PYTHON_SAY = say("<|python_start|>[add()]<|python_end|> ') )]")
SEEK_SAY, KIMI_SAY = say(" ".join(DEEPSEEK)), say(" ".join(KIMI))


def tagged_qwen(name: str, values: dict[str, str]) -> str:
    pairs = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"\n<function={name}>\n{pairs}</function>\n"


def tagged_glm(name: str, values: dict[str, str]) -> str:
    pairs = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in values.items())
    return f"{name}\n{pairs}"


def fenced(name: str, arguments: Any) -> str:
    return f"function{DEEPSEEK[2]}{name}\n```json\n{json.dumps(arguments)}\n```"


FORMATS = [
    Format(
        name="qwen3-coder",
        begin="<tool_call>",
        end="</tool_call>",
        call=tagged_qwen("add", {"a": "1", "b": "2"}),
        meaning=named("add", ADD),
        other=tagged_qwen("say", QWEN_SAY),
        other_meaning=named("say", QWEN_SAY),
        half="\n<function=add>\n<parameter=a>\n1",
        fence="```",
        many=True,
    ),
    Format(
        name="glm-4.5",
        begin="<tool_call>",
        end="</tool_call>",
        call=tagged_glm("add", {"a": "1", "b": "2"}),
        meaning=named("add", ADD),
        other=tagged_glm("say", GLM_SAY),
        other_meaning=named("say", GLM_SAY),
        half="add\n<arg_key>a</arg_key>\n<arg_value>1",
        fence="```",
        many=True,
    ),
    Format(
        name="deepseek-v3",
        begin=DEEPSEEK[1],
        end=DEEPSEEK[3],
        call=fenced("add", ADD),
        meaning=named("add", ADD),
        other=fenced("say", SEEK_SAY),
        other_meaning=named("say", SEEK_SAY),
        half=f'function{DEEPSEEK[2]}add\n```json\n{{"a": 1',
        fence="```",
        many=True,
    ),
    Format(
        name="deepseek-v3.1",
        begin=DEEPSEEK[1],
        end=DEEPSEEK[3],
        call=f"add{DEEPSEEK[2]}{json.dumps(ADD)}",
        meaning=named("add", ADD),
        other=f"say{DEEPSEEK[2]}{json.dumps(SEEK_SAY)}",
        other_meaning=named("say", SEEK_SAY),
        half=f'add{DEEPSEEK[2]}{{"a": 1',
        fence="```",
        many=True,
    ),
    Format(
        name="kimi-k2",
        begin=KIMI[1],
        end=KIMI[3],
        call=f"functions.add:0{KIMI[2]}{json.dumps(ADD)}",
        meaning=named("add", ADD),
        other=f"functions.say:1{KIMI[2]}{json.dumps(KIMI_SAY)}",
        other_meaning=named("say", KIMI_SAY),
        half=f'functions.add:0{KIMI[2]}{{"a": 1',
        fence="```",
        many=True,
    ),
    Format(
        name="mistral",
        begin="[TOOL_CALLS]",
        end="",
        call=json.dumps([named("add", ADD)]),
        meaning=named("add", ADD),
        other=json.dumps([named("say", MISTRAL_SAY)]),
        other_meaning=named("say", MISTRAL_SAY),
        half='[{"name": "add", "arguments": {"a": 1',
        fence="```",
        many=True,
    ),
    Format(
        name="mistral-v11",
        begin="[TOOL_CALLS]",
        end="",
        call=f"add[ARGS]{json.dumps(ADD)}",
        meaning=named("add", ADD),
        other=f"say[CALL_ID]abcdefgh1[ARGS]{json.dumps(MISTRAL_SAY)}",
        other_meaning=named("say", MISTRAL_SAY),
        half='add[ARGS]{"a": 1',
        fence="```",
        many=True,
    ),
    Format(
        name="llama3",
        begin='{"name": ',
        end="",
        call=f'"add", "parameters": {json.dumps(ADD)}}}',
        meaning=named("add", ADD),
        other=f'"say", "parameters": {json.dumps(LLAMA_SAY)}}}',
        other_meaning=named("say", LLAMA_SAY),
        half='"add", "parameters": {"a": 1',
        fence="```",
        many=True,
    ),
    Format(
        name="pythonic",
        begin="[",
        end="",
        call="add(a=1, b=2)]",
        meaning=named("add", ADD),
        other=f"say(text={PYTHON_SAY['text']!r})]",
        other_meaning=named("say", PYTHON_SAY),
        half="add(a=1, b=",
        fence="```",
        many=True,
    ),
]


def special(name: str) -> Iterator[tuple[str, str, list[Any], list[str], str]]:
    """Replies that only one format has: about, text, calls, errors, content."""
    add, say_x = named("add", ADD), named("say", {"text": "x"})
    begin, head, sep, end, finish = DEEPSEEK
    if name in ("qwen3-coder", "glm-4.5"):
        write = tagged_qwen if name == "qwen3-coder" else tagged_glm
        quoted = f"<tool_call>{write('add', {'a': '1', 'b': '2'})}</tool_call>"

        def one(tool: str, **values: str) -> str:
            return f"<tool_call>{write(tool, values)}</tool_call>"

        yield "no arguments", one("now"), [named("now", {})], [], ""
        yield "a whole call as a value", one("say", text=quoted), [named("say", {"text": quoted})], [], ""
        yield (
            "two whole calls as a value and a call",
            one("say", text=quoted * 2) + one("add", a="1", b="2"),
            [named("say", {"text": quoted * 2}), add],
            [],
            "",
        )
        for written, value in [("1", "1"), ("true", "true"), ("null", "null"), ('{"k": 1}', '{"k": 1}'), ("", "")]:
            yield f"the text {written!r}", one("say", text=written), [named("say", {"text": value})], [], ""
        for written, value in [("7", 7), ("-3", -3), ("x", "x"), ("1.5", "1.5"), ("None", "None"), ('"1"', '"1"')]:
            yield f"the integer {written!r}", one("add", a=written), [named("add", {"a": value})], [], ""
        for key, written, value in [
            ("flag", "true", True),
            ("flag", "False", False),
            ("flag", "yes", "yes"),
            ("ratio", "0.5", 0.5),
            ("ratio", "2", 2),
            ("ratio", "NaN", "NaN"),
            ("items", '[1, "x", null]', [1, "x", None]),
            ("items", "[1, 2", "[1, 2"),
            ("table", '{"a": {"b": []}}', {"a": {"b": []}}),
            ("table", "{'a': 1}", "{'a': 1}"),
            ("table", '{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
            ("maybe", "null", None),
            ("maybe", "None", None),
            ("maybe", "word", "word"),
            ("maybe", "3", "3"),
            ("either", "3", 3),
            ("either", "three", "three"),
            ("level", "low", "low"),
            ("level", "2", 2),
            ("unknown", "5", 5),
            ("unknown", "five", "five"),
        ]:
            yield f"{key} {written}", one("many", **{key: written}), [named("many", {key: value})], [], ""
        yield "an unknown tool", one("nope", a="1", b="x"), [named("nope", {"a": 1, "b": "x"})], [], ""
        yield "a value of lines", one("say", text="one\n\n  two\n"), [named("say", {"text": "one\n\n  two\n"})], [], ""
        yield "JSON instead", f"<tool_call>{json.dumps(add)}</tool_call>", [add], [], ""
    elif name.startswith("deepseek"):
        whole = f"{head}{FORMATS[2].call}{end}"
        newer = f"{head}{FORMATS[3].call}{end}"
        for about, call in [("the older way", whole), ("the newer way", newer)]:
            yield f"{about} between the outer marks", f"Hm.\n{begin}{call}{finish}", [add], [], "Hm."
            yield f"{about} twice", f"{begin}{call}\n{call}{finish}", [add, add], [], ""
            yield f"{about} twice without a break", f"{begin}{call}{call}{finish}", [add, add], [], ""
            yield (
                f"{about} with the end of the turn",
                f"{begin}{call}{finish}<｜end▁of▁sentence｜>",
                [add],
                [],
                ("<｜end▁of▁sentence｜>"),
            )
            yield f"{about} and words", f"{begin}{call}{finish}\nThat is it.", [add], [], "That is it."
            yield f"{about} without the last mark", f"{begin}{call}", [add], [], ""
            yield f"{about} in lines", f"{begin}\n{call}\n{finish}", [add], [], ""
        yield "both ways", f"{begin}{whole}{newer}{finish}", [add, add], [], ""
        yield "no space in the fence", f"{head}function{sep}add\n```json{json.dumps(ADD)}```{end}", [add], [], ""
        yield "a bare fence", f"{head}function{sep}add\n```\n{json.dumps(ADD)}\n```{end}", [add], [], ""
        fence = {"text": "```json\n{}\n```"}
        yield (
            "a fence in a value",
            f"{head}function{sep}say\n```json\n{json.dumps(fence)}\n```{end}",
            [named("say", fence)],
            [],
            "",
        )
        yield "a name with a dot", f"{head}kit.add{sep}{{}}{end}", [named("kit.add", {})], [], ""
    elif name == "kimi-k2":
        first, call_mark, arguments, last, final = KIMI
        whole = f"{call_mark}functions.add:0{arguments}{json.dumps(ADD)}{last}"
        yield "the outer marks", f"Hm.{first}{whole}{final}", [add], [], "Hm."
        yield "two calls", f"{first}{whole}{whole.replace(':0', ':1')}{final}", [add, add], [], ""
        yield "lines between", f"{first}\n{whole}\n{whole}\n{final}\nDone.", [add, add], [], "Done."
        for head_, tool in [
            ("add:0", "add"),
            ("functions.kit.add:3", "kit.add"),
            ("functions.add", "add"),
            (" functions.add:12 ", "add"),
            ("functions.functions.add:0", "functions.add"),
            ("get_x-1:0", "get_x-1"),
        ]:
            yield f"the head {head_!r}", f"{call_mark}{head_}{arguments}{{}}{last}", [named(tool, {})], [], ""
        yield "spaces", f"{call_mark} functions.add:0 {arguments} {json.dumps(ADD)} {last}", [add], [], ""
    elif name.startswith("mistral"):
        two = json.dumps([add, say_x])
        yield "two in a list", f"[TOOL_CALLS]{two}", [add, say_x], [], ""
        yield "a space behind the mark", f"[TOOL_CALLS] {two}", [add, say_x], [], ""
        yield "a list with ids", f"[TOOL_CALLS]{json.dumps([{**add, 'id': 'abcdefgh1'}])}", [add], [], ""
        yield "one object", f"[TOOL_CALLS]{json.dumps(add)}", [add], [], ""
        yield "a list over lines", f"[TOOL_CALLS]{json.dumps([add, say_x], indent=2)}", [add, say_x], [], ""
        yield "words behind a list", f"[TOOL_CALLS]{two}\nThat is [it].", [add, say_x], [], "That is [it]."
        yield "brackets before", f"I [know] that.[TOOL_CALLS]{two}", [add, say_x], [], "I [know] that."
        yield "the end of the turn", f"[TOOL_CALLS]{two}</s>", [add, say_x], [], "</s>"
        for head_ in ("add[ARGS]", "add", "add [ARGS] ", "add[CALL_ID]abcdefgh1[ARGS]", " add\n"):
            yield f"the head {head_!r}", f"[TOOL_CALLS]{head_}{json.dumps(ADD)}", [add], [], ""
        call = f"[TOOL_CALLS]add[ARGS]{json.dumps(ADD)}"
        yield "three marks", call * 3, [add] * 3, [], ""
        yield "three marks in lines", "\n".join([call] * 3), [add] * 3, [], ""
        yield "both ways", call + f"[TOOL_CALLS]{two}", [add, add, say_x], [], ""
        yield "a list that is not closed", f"[TOOL_CALLS]{two[:-1]}", [], ["unclosed"], ""
        yield "an empty list", "[TOOL_CALLS][]", [], [], ""
        thought = f"[THINK]I may write {call} for that.[/THINK]"
        yield "a call in Magistral's thinking", thought, [], [], thought
        yield "a call behind Magistral's thinking", thought + call, [add], [], thought
        yield "Magistral's thinking that does not end", thought[:-8], [], [], thought[:-8]
    elif name == "llama3":
        call, other = (json.dumps({"name": one["name"], "parameters": one["arguments"]}) for one in (add, say_x))
        yield "two calls", f"{call}; {other}", [add, say_x], [], ""
        yield "two calls without space", f"{call};{other}", [add, say_x], [], ""
        yield "two calls in lines", f"{call}\n{other}", [add, say_x], [], ""
        yield "two calls with a break", f"{call} ;\n{other}", [add, say_x], [], ""
        yield "the tag", f"<|python_tag|>{call}", [add], [], ""
        yield "the tag and two calls", f"<|python_tag|>{call}; {other}<|eom_id|>", [add, say_x], [], ""
        yield "words and the tag", f"Well. <|python_tag|>{call}", [add], [], "Well."
        yield "the end of the turn", f"{call}<|eot_id|>", [add], [], ""
        yield "a built-in tool", '<|python_tag|>web.call(query="x, (y)")', [named("web", {"query": "x, (y)"})], [], ""
        yield "arguments for parameters", json.dumps(add), [add], [], ""
        yield "a type", json.dumps({"type": "function", "name": "add", "parameters": ADD}), [add], [], ""
        yield "over lines", json.dumps({"name": "add", "parameters": ADD}, indent=2), [add], [], ""
        yield "a list", f"[{call}, {other}]", [add, say_x], [], ""
        yield "parameters first", json.dumps({"parameters": ADD, "name": "add"}), [add], [], ""
        for about, text in [
            ("a name and no parameters", json.dumps({"name": "Ann", "age": 3})),
            ("lines of such", "\n".join([json.dumps({"name": "Ann", "age": 3})] * 5)),
            ("parameters that are no object", json.dumps({"name": "Ann", "parameters": "none"})),
            ("a call in an object", json.dumps({"answer": {"name": "add", "parameters": ADD}})),
            ("a call in an object over lines", '{"answer":\n{"name": "add", "parameters": {}}\n}'),
            ("a call in a list over lines", '[1,\n{"name": "add", "parameters": {}}\n]'),
            ("a call behind words", f"I call {call} now."),
            ("half an object", '{"name": "Ann", "age"'),
            ("another object", '{"result": 3}'),
        ]:
            yield about, text, [], [], text
    elif name == "pythonic":
        yield "two calls", '[add(a=1, b=2), say(text="x")]', [add, say_x], [], ""
        yield "two calls over lines", '[\n  add(a=1, b=2),\n  say(text="x"),\n]', [add, say_x], [], ""
        yield "the marks", "<|python_start|>[add(a=1, b=2)]<|python_end|>", [add], [], ""
        yield "words and the marks", "Well. <|python_start|>[add(a=1, b=2)]<|python_end|>", [add], [], "Well."
        yield "words behind", "[add(a=1, b=2)]\nThat is it.", [add], [], "That is it."
        yield "no arguments", "[now()]", [named("now", {})], [], ""
        yield "a name with a dot", "[kit.add(a=1)]", [named("kit.add", {"a": 1})], [], ""
        for written, value in [
            ("'x'", "x"),
            ('"x"', "x"),
            ("'it\\'s'", "it's"),
            ('"a, b) ]"', "a, b) ]"),
            ("True", True),
            ("false", False),
            ("None", None),
            ("null", None),
            ("-1.5", -1.5),
            ("[1, 'a', [True]]", [1, "a", [True]]),
            ("{'k': {'l': None}}", {"k": {"l": None}}),
            ('{"k": true}', {"k": True}),
            ("(1, 2)", [1, 2]),
            ("'a' 'b'", "ab"),
            ("1 ", 1),
        ]:
            yield f"the value {written}", f"[f(x={written})]", [named("f", {"x": value})], [], ""
        for about, text in [
            ("a list of names", "[a, b]"),
            ("a link", "[docs](https://example.org)"),
            ("a comprehension", "[f(x) for x in y]"),
            ("a call behind words", "I call [add(a=1, b=2)] now."),
            ("a list of numbers", "[1, 2, 3]"),
        ]:
            yield about, text, [], [], text
        yield "a call that is not closed", "[add(a=1, b=2)", [], ["unclosed"], ""


def corpus() -> Iterable[dict[str, Any]]:
    """All cases, each reply of a format once."""
    for f in FORMATS:
        seen = set()
        for pieces in replies(f):
            assert not any(piece.last for piece in pieces[:-1]), pieces
            if f.name in ("llama3", "pythonic") and pieces[-1].kind == "a mark alone":
                continue  # a bracket is no mark
            text = "".join(piece.text for piece in pieces)
            if text not in seen:
                seen.add(text)
                yield case(f, pieces)
        for about, text, calls, errors, content in special(f.name):
            if text not in seen:
                seen.add(text)
                row = {"format": f.name, "about": about, "text": text}
                yield row | {"calls": calls, "errors": errors, "content": content}


def main() -> None:
    """Write the corpus."""
    lines = [json.dumps(row, ensure_ascii=False) for row in corpus()]
    CORPUS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
