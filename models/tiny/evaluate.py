"""Measures the embedded model on held-out tasks: whole dialogs in a real loop, with real calculators and real Python processes.

    python models/tiny/evaluate.py                       # print the table
    python models/tiny/evaluate.py --card                # and write it into the model card

A dialog counts only if every reply is right: each call exactly the expected one, each final answer byte for byte, each program printing the
right thing, each text made of whole sentences about exactly the topic. Expressions, words and names are ones the training corpus leaves out.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import corpus
import words
from corpus import Dialog, Kit, Message, Source, Tool

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lagentlike.llms.tiny.engine import SamplingParams, TinyEngine
from lagentlike.prompts.parsers.tool_call import parse_tool_calls

__all__ = ["CASES", "measure", "success"]

Play = Generator[tuple[list[Message], list[Tool]], str, bool]
CARD_BEGIN, CARD_END = "<!-- figures begin -->", "<!-- figures end -->"


# --------------------------------------------------------------------------------------------------------------------------------------
# Playing a dialog
# --------------------------------------------------------------------------------------------------------------------------------------


def replay(dialog: Dialog, skip: int = 0, run: Callable[[Message], str] | None = None) -> Play:
    """Play a dialog whose replies are known; the first `skip` messages are given.

    Args:
        run: Computes the result of a call; without it the dialog's own result is used.
    """
    history: list[Message] = [clean(m) for m in dialog.messages[:skip]]
    pending: list[str] = []
    for expected in dialog.messages[skip:]:
        if expected["role"] == "tool" and run is not None:
            history.append({"role": "tool", "content": pending.pop(0)})
            continue
        if expected["role"] != "assistant" or expected.get("skip"):
            history.append(clean(expected))
            continue
        reply = yield history, dialog.tools
        if not same(reply, expected):
            return False
        history.append(clean(expected))
        if run is not None:
            pending = [run(call["function"]) for call in expected.get("tool_calls", ())]
    return True


def clean(message: Message) -> Message:
    return {key: value for key, value in message.items() if key in ("role", "content", "tool_calls")}


def same(reply: str, expected: Message) -> bool:
    prose, calls = read_calls(reply)
    wanted = [call["function"] for call in expected.get("tool_calls", ())]
    return (prose == "" and calls == wanted) if wanted else without_fence(reply) == without_fence(expected["content"])


def without_fence(text: str) -> str:
    """A reply without the end of the block it ends with: where that is cut is up to the stop words, not to the model."""
    return text.rstrip().removesuffix("```").rstrip() if "\n```" in text else text


def read_calls(reply: str) -> tuple[str, list[dict[str, Any]]]:
    """The prose of a reply and its tool calls."""
    parsed = parse_tool_calls(reply)
    return parsed.content or "", [{"name": call.name, "arguments": call.arguments} for call in parsed.calls]


def calculate(function: Message) -> str:
    return str(corpus.evaluate(next(iter(function["arguments"].values()))))


def run_python(code: str) -> str:
    """What a program prints in a process of its own, or its error."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MPLBACKEND": "Agg"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()


# --------------------------------------------------------------------------------------------------------------------------------------
# The cases, one a row of the table
# --------------------------------------------------------------------------------------------------------------------------------------


def tool_case(s: Source, maker: Callable[..., Kit], renamed: float, turns: int = 1, distractors: int = 0, run: Callable[[Message], str] | None = None) -> Play:
    kit = maker(s, renamed)
    others = [k for k in (m(s) for m in (corpus.search_kit, corpus.weather_kit, corpus.attribute_kit, corpus.calculator_kit)) if k.kind != kit.kind]
    kits = [kit, *s.rng.sample(others, distractors)]
    s.rng.shuffle(kits)
    messages = corpus.system_prompt(s)
    for _ in range(turns):
        messages += plain_turn(s, kit)
    return replay(Dialog("tools", messages, [k.schema for k in kits]), run=run)


def plain_turn(s: Source, kit: Kit, question: str = "") -> list[Message]:
    use = kit.argument(s)
    return [
        {"role": "user", "content": question or use.question},
        {"role": "assistant", "content": "", "tool_calls": [corpus.call(use.name, use.arguments)]},
        {"role": "tool", "content": use.result},
        {"role": "assistant", "content": use.answer(use.result)},
    ]


def first_example(s: Source) -> Play:
    """The first program of the documentation, with held-out numbers: "What is the result of ...?", one calculator."""
    tool = corpus.schema(s, "calculator", "Evaluate an arithmetic expression.", {"expression": ("string", "The expression.")})
    text = ""
    while not text or not corpus.is_held_out(text):
        text = f"{s.integer(s.rng.randint(1, 3))} {s.pick('+-*')} {s.integer(s.rng.randint(1, 3))}"
    messages = calculator_messages("What is the result of {e}?", text, "calculator", "expression")
    return replay(Dialog("tools", messages, [tool]), run=calculate)


def digits_case(s: Source, low: int, high: int, operators: str = "+-*") -> Play:
    """Two numbers of so many digits, in any of the trained phrasings."""
    text = ""
    while not text or not corpus.is_held_out(text):
        text = f"{s.integer(s.rng.randint(low, high))} {s.pick(operators)} {max(1, s.integer(s.rng.randint(low, high)))}"
    messages = calculator_messages(s.pick(corpus.CALC_ASK), text, "calculator", "expression")
    tool = corpus.schema(s, "calculator", s.pick(corpus.CALC_ABOUT), {"expression": ("string", s.pick(corpus.CALC_ARG_ABOUT))})
    return replay(Dialog("tools", corpus.system_prompt(s) + messages, [tool]), run=calculate)


def longer_case(s: Source) -> Play:
    """Three or more numbers, brackets, powers, decimals."""
    text = s.expression()
    while len(text.split()) < 4 and "." not in text:
        text = s.expression()
    messages = calculator_messages(s.pick(corpus.CALC_ASK), text, "calculator", "expression")
    return replay(Dialog("tools", messages, [corpus.schema(s, "calculator", corpus.CALC_ABOUT[0], {"expression": ("string", "")})]), run=calculate)


def calculator_messages(ask: str, text: str, name: str, argument: str) -> list[Message]:
    result = str(corpus.evaluate(text))
    return [
        {"role": "user", "content": ask.format(e=text)},
        {"role": "assistant", "content": "", "tool_calls": [corpus.call(name, {argument: text})]},
        {"role": "tool", "content": result},
        {"role": "assistant", "content": f"The result of {text} is {result}."},
    ]


UNSEEN_CALCULATIONS = (
    "What would {e} be?", "Could you tell me what {e} makes?", "I have to know the outcome of {e}", "Kindly evaluate {e} now.", "{e}, please?", "Give {e} a go.",
    "Someone asked me for {e}. Any idea?", "Let's see: {e}", "Run {e} through the calculator.", "How about {e}?", "What number is {e}?", "Figure out {e}.",
    "Please give the exact value of {e}.", "Can you do {e} for me?",
)  # fmt: skip
UNSEEN_SEARCHES = (
    "Could you find something on {t}?", "I wonder what {t} is.", "Please research {t} for me.", "What can you tell me about {t}?", "Any information on {t}?",
    "Search online for {t}.", "Let's look up {t}.", "Get me facts on {t}.", "I'd like to learn about {t}.", "Teach me about {t}.",
)  # fmt: skip


def unseen_calculation(s: Source) -> Play:
    kit = corpus.calculator_kit(s, 0.3)
    name, argument = kit.schema["function"]["name"], next(iter(kit.schema["function"]["parameters"]["properties"]))
    return replay(Dialog("tools", calculator_messages(s.pick(UNSEEN_CALCULATIONS), s.expression(), name, argument), [kit.schema]), run=calculate)


def unseen_search(s: Source) -> Play:
    kit = corpus.search_kit(s, 0.3)
    use = kit.argument(s)
    topic = next(iter(use.arguments.values()))
    messages = [
        {"role": "user", "content": s.pick(UNSEEN_SEARCHES).format(t=topic)},
        {"role": "assistant", "content": "", "tool_calls": [corpus.call(use.name, use.arguments)]},
        {"role": "tool", "content": use.result},
        {"role": "assistant", "content": use.answer(use.result)},
    ]
    return replay(Dialog("tools", messages, [kit.schema]))


def binary_case(s: Source) -> Play:
    kits = [corpus.binary_kit(s, op) for op in "+*"]
    if kits[0].schema["function"]["name"] == kits[1].schema["function"]["name"]:
        kits.pop()
    return replay(Dialog("tools", corpus.system_prompt(s) + plain_turn(s, s.pick(kits)), [kit.schema for kit in kits]))


def double_case(s: Source) -> Play:
    kit = s.pick((corpus.calculator_kit, corpus.weather_kit, corpus.search_kit))(s, 0.3)
    return replay(Dialog("tools", corpus.double_turn(s, kit), [kit.schema]))


def random_result_case(s: Source) -> Play:
    """The tool answers something random: the model must say that, not what it thinks."""
    kit = s.pick((corpus.calculator_kit, corpus.attribute_kit, corpus.weather_kit))(s)
    turn = plain_turn(s, kit)
    use = kit.argument(s)
    result = use.random_result(s)
    turn = [
        {"role": "user", "content": use.question},
        {"role": "assistant", "content": "", "tool_calls": [corpus.call(use.name, use.arguments)]},
        {"role": "tool", "content": result},
        {"role": "assistant", "content": use.answer(result)},
    ]
    return replay(Dialog("tools", turn, [kit.schema]))


def error_case(s: Source) -> Play:
    kit = s.pick((corpus.calculator_kit, corpus.search_kit))(s)
    turn = plain_turn(s, kit)
    turn[2]["content"] = s.pick(corpus.ERRORS).format(w=s.word(), d=s.rng.randint(2, 90))
    turn[3]["content"] = f"Sorry, the tool failed. {turn[2]['content']}"
    return replay(Dialog("tools", turn, [kit.schema]))


def no_fit_case(s: Source) -> Play:
    maker = s.pick((corpus.search_kit, corpus.calculator_kit))
    kit = maker(s)
    question, answer = (corpus.calculation(s)[0], "calculator") if kit.kind == "search" else (s.pick(corpus.SEARCH_ASK[:26]).format(t=s.topic()), "search")
    return replay(Dialog("tools", corpus.exchange(question, f"I need a {answer} tool for that."), [kit.schema]))


def long_case(s: Source) -> Play:
    """A conversation of 700 to 1100 tokens before the question that counts."""
    kits = [corpus.calculator_kit(s), corpus.search_kit(s)]
    messages = corpus.system_prompt(s)
    engine = TinyEngine.load(s.path) if isinstance(getattr(s, "path", None), Path) else TinyEngine.load()
    while len(engine.render([*messages, {"role": "user", "content": ""}], [k.schema for k in kits])) < 700:
        messages += plain_turn(s, s.pick(kits))
    skip = len(messages)
    return replay(Dialog("tools", messages + plain_turn(s, s.pick(kits)), [k.schema for k in kits]), skip)


def code_case(s: Source, plot: bool = False, python_role: str = "") -> Play:
    """A program in a ```python block, run for real, and the answer read off its output."""
    task = corpus.plot(s) if plot else corpus.program(s)
    role = python_role or s.pick(("environment", "tool", "user"))
    history: list[Message] = [{"role": "system", "content": s.pick(corpus.CODE_SYSTEMS)}, {"role": "user", "content": task.question}]
    reply = yield history, []
    if "```python\n" not in reply:
        return False
    code = reply.split("```python\n")[1].split("\n```")[0]
    output = run_python(code)
    if plot:
        if code != task.code or output:
            return False
    elif output != task.output:
        return False
    history += [{"role": "assistant", "content": reply}, {"role": role, "content": output or "Done"}]
    answer = yield history, []
    return answer == (task.done or f"The answer is {output}.")


def python_tool_case(s: Source) -> Play:
    kit = corpus.python_kit(s)
    use = kit.argument(s)
    history: list[Message] = [{"role": "user", "content": use.question}]
    prose, calls = read_calls((yield history, [kit.schema]))
    if prose or len(calls) != 1 or calls[0]["name"] != use.name or list(calls[0]["arguments"]) != list(use.arguments):
        return False
    output = run_python(str(next(iter(calls[0]["arguments"].values()))))
    if output != use.result:
        return False
    history += [{"role": "assistant", "content": "", "tool_calls": [corpus.call(calls[0]["name"], calls[0]["arguments"])]}, {"role": "tool", "content": output}]
    answer = yield history, [kit.schema]
    return answer == use.answer(output)


def tutorial_projection(s: Source) -> Play:
    """The projection question of vector geometry, in TeX."""
    questions, code = corpus._p_projection(s)
    expected = corpus.run_code(code)
    history: list[Message] = [{"role": "system", "content": corpus.CODE_SYSTEMS[0]}, {"role": "user", "content": questions[0]}]
    reply = yield history, []
    if "```python\n" not in reply:
        return False
    output = run_python(reply.split("```python\n")[1].split("\n```")[0])
    if output != expected:
        return False
    history += [{"role": "assistant", "content": reply.split("\n```\n")[0]}, {"role": "environment", "content": output}]
    answer = yield history, []
    return answer == f"The answer is {output}."


def writer_case(s: Source) -> Play:
    topic = s.topic()
    reply = yield [{"role": "system", "content": s.pick(corpus.WRITER_SYSTEMS)}, {"role": "user", "content": s.pick(corpus.WRITE_ASK).format(t=topic)}], []
    return is_draft(reply, topic)


def is_draft(text: str, topic: str) -> bool:
    paragraphs = text.split("\n\n")
    kinds = (corpus.OPENING, corpus.BODY, corpus.DEPTH, corpus.CLOSING)
    return len(paragraphs) == 4 and all(p in [k.format(t=topic) for k in kind] for p, kind in zip(paragraphs, kinds, strict=True))


def critic_case(s: Source) -> Play:
    topic = s.topic()
    text = corpus.text_of(corpus.draft(s, topic))
    reply = yield [{"role": "system", "content": s.pick(corpus.CRITIC_SYSTEMS)}, {"role": "user", "content": s.pick(corpus.REFLECT) + text}], []
    return bool(points_of(reply, topic))


def points_of(text: str, topic: str) -> list[int]:
    """The points of a well-formed critique on the topic."""
    for first in range(len(corpus.POINTS)):
        for second in range(len(corpus.POINTS)):
            if first != second and text == corpus.critique([first, second], topic):
                return [first, second]
    return []


def blog_case(s: Source) -> Play:
    """Writer and critic in turns: draft, critique, revision, critique, revision; seven messages on the writer's side."""
    topic = s.topic()
    writer: list[Message] = [{"role": "system", "content": corpus.WRITER_SYSTEMS[0]}, {"role": "user", "content": corpus.WRITE_ASK[0].format(t=topic)}]
    critic: list[Message] = [{"role": "system", "content": corpus.CRITIC_SYSTEMS[0]}]
    text = yield writer, []
    if not is_draft(text, topic):
        return False
    for _ in range(2):
        critic.append({"role": "user", "content": corpus.REFLECT[0] + text})
        said = yield critic, []
        points = points_of(said, topic)
        if not points:
            return False
        critic.append({"role": "assistant", "content": said})
        writer += [{"role": "assistant", "content": text}, {"role": "user", "content": said}]
        revised = yield writer, []
        if revised != corpus.text_of(corpus.revise(text.split("\n\n"), points, topic)):
            return False
        text = revised
    return True


def reviser_case(s: Source) -> Play:
    """One revision after one critique."""
    topic = s.topic()
    paragraphs, first = corpus.draft(s, topic), s.rng.randrange(len(corpus.POINTS))
    points = [first, (first + 1) % len(corpus.POINTS)]
    messages = [{"role": "system", "content": s.pick(corpus.WRITER_SYSTEMS)}, *corpus.exchange(s.pick(corpus.WRITE_ASK).format(t=topic), corpus.text_of(paragraphs))]
    reply = yield [*messages, {"role": "user", "content": corpus.critique(points, topic)}], []
    return reply == corpus.text_of(corpus.revise(paragraphs, points, topic))


def chat_case(s: Source) -> Play:
    questions, answer = s.pick(corpus.CHAT)
    return replay(Dialog("chat", corpus.system_prompt(s) + corpus.exchange(s.pick(questions), answer)))


def memory_case(s: Source) -> Play:
    """A name told, other talk, the name asked for; and in a fresh session it is not known."""
    name = s.name()
    told = corpus.exchange(s.pick(corpus.TELL_NAME).format(n=name), f"Nice to meet you, {name}.")
    between = corpus.chat_turn(s) if s.chance(0.5) else []
    asked = corpus.exchange(s.pick(corpus.ASK_NAME), f"Your name is {name}.")
    return replay(Dialog("memory", [*told, *between, *asked]))


def memory_with_tools_case(s: Source) -> Play:
    """A name told and asked for while tools are on offer, with a tool call in between."""
    name, kit = s.name(), corpus.calculator_kit(s, 0.3)
    told = corpus.exchange(s.pick(corpus.TELL_NAME).format(n=name), f"Nice to meet you, {name}.")
    asked = corpus.exchange(s.pick(corpus.ASK_NAME), f"Your name is {name}.")
    return replay(Dialog("memory", [*told, *plain_turn(s, kit), *asked], [kit.schema]), run=calculate)


def isolation_case(s: Source) -> Play:
    return replay(Dialog("memory", corpus.exchange(s.pick(corpus.ASK_NAME), "You have not told me your name.")))


def fact_case(s: Source) -> Play:
    key, value = s.pick(corpus.FACTS_ABOUT_ME), s.word()
    told = corpus.exchange(s.pick(corpus.TELL_FACT).format(k=key, v=value), f"I will remember that your {key} is {value}.")
    return replay(Dialog("memory", [*told, *corpus.exchange(s.pick(corpus.ASK_FACT).format(k=key), f"Your {key} is {value}.")]))


def choice_case(s: Source) -> Play:
    options = s.pick((["典", "孝", "急"], ["red", "green", "blue"], s.rng.sample(words.HELD_OUT, 3), ["yes", "no"]))
    system = f"你的回答只能从{'，'.join(f'“{o}”' for o in options)}{'三' if len(options) == 3 else '两'}个字中选一个。" if options[0] == "典" else f"Answer only with one of: {', '.join(options)}."
    reply = yield [{"role": "system", "content": system}, {"role": "user", "content": s.pick(("今天的天气情况怎么样", "How is the weather today?", "Which one?"))}], []
    return reply in options


def few_shot_case(s: Source) -> Play:
    messages = corpus.exchange("今天天气", "【晴】")
    reply = yield [*messages, {"role": "user", "content": s.pick(("昨天天气", "明天天气", "后天天气"))}], []
    return reply.startswith("【") and reply.endswith("】") and len(reply) >= 3


def sums_case(s: Source) -> Play:
    question, text = corpus.calculation(s)
    while len(text.replace(" ", "")) <= 3:
        question, text = corpus.calculation(s)
    return replay(Dialog("sums", corpus.exchange(question, "I need a calculator tool for that.")))


def json_case(s: Source) -> Play:
    return replay(corpus.json_dialog(s))


def text_case(s: Source) -> Play:
    """Calls written as text, with the tools inside the system prompt, with or without a thought before them."""
    return replay(corpus.hermes_dialog(s))


def crowd_case(s: Source) -> Play:
    """A calculator among eight to twelve tools that nobody asks for."""
    kit = corpus.calculator_kit(s, 0.3)
    tools = [kit.schema, *(tool for tool in (corpus.bystander(s) for _ in range(s.rng.randint(8, 12))) if tool["function"]["name"] != kit.schema["function"]["name"])]
    s.rng.shuffle(tools)
    return replay(Dialog("tools", plain_turn(s, kit), tools), run=calculate)


def function_case(s: Source) -> Play:
    """A function that is to be written into a file."""
    dialog = corpus.function_dialog(s)
    while not dialog.tools:
        dialog = corpus.function_dialog(s)
    return replay(dialog)


CASES: dict[str, tuple[int, Callable[[Source], Play]]] = {
    "calculator, as in the first example": (200, first_example),
    "calculator, 48 phrasings, 1 and 2 digits": (200, lambda s: digits_case(s, 1, 2)),
    "calculator, 48 phrasings, 3 and 4 digits": (200, lambda s: digits_case(s, 3, 4)),
    "calculator, 48 phrasings, 5 and 6 digits": (100, lambda s: digits_case(s, 5, 6)),
    "calculator, 48 phrasings, division": (100, lambda s: digits_case(s, 1, 3, "/")),
    "calculator, longer expressions and decimals": (100, longer_case),
    "calculator, two or three questions in a row": (60, lambda s: tool_case(s, corpus.calculator_kit, 0.0, s.rng.randint(2, 3), run=calculate)),
    "calculator under an unseen name": (200, lambda s: tool_case(s, corpus.calculator_kit, 1.0, 1, run=calculate)),
    "calculator among three tools": (100, lambda s: tool_case(s, corpus.calculator_kit, 0.3, 1, 2, run=calculate)),
    "calculator, phrasings never trained": (100, unseen_calculation),
    "two-number tools": (100, binary_case),
    "two calls in one message": (100, double_case),
    "search": (200, lambda s: tool_case(s, corpus.search_kit, 0.0)),
    "search under an unseen name": (100, lambda s: tool_case(s, corpus.search_kit, 1.0)),
    "search, phrasings never trained": (100, unseen_search),
    "weather": (100, lambda s: tool_case(s, corpus.weather_kit, 0.4)),
    "lookup tool under an unseen name, three tools": (100, lambda s: tool_case(s, corpus.attribute_kit, 1.0, 1, 2)),
    "random tool results": (100, random_result_case),
    "tool errors": (100, error_case),
    "no tool fits": (100, no_fit_case),
    "python tool": (100, python_tool_case),
    "code block": (200, code_case),
    "projection in TeX": (50, tutorial_projection),
    "plot": (60, lambda s: code_case(s, plot=True)),
    "call in a json block": (50, json_case),
    "calls as text, tools in the system prompt": (100, text_case),
    "calculator among ten tools": (60, crowd_case),
    "small function written to a file": (100, function_case),
    "writer": (100, writer_case),
    "critic": (100, critic_case),
    "reviser": (100, reviser_case),
    "writer and critic, two rounds": (50, blog_case),
    "greetings and questions about itself": (100, chat_case),
    "remembers a name": (100, memory_case),
    "remembers a name beside its tools": (60, memory_with_tools_case),
    "remembers another fact": (100, fact_case),
    "does not know a name it was not told": (50, isolation_case),
    "one of the allowed answers": (60, choice_case),
    "form of the examples": (30, few_shot_case),
    "arithmetic without a tool": (50, sums_case),
    "conversation of 700 to 1100 tokens": (60, long_case),
}


# --------------------------------------------------------------------------------------------------------------------------------------
# The run
# --------------------------------------------------------------------------------------------------------------------------------------


def success(engine: TinyEngine, maker: Callable[[Source], Play], number: int, seed: int = 20240, show: int = 0) -> float:
    """The share of dialogs played through, `number` of them side by side."""
    plays: list[Play] = []
    for i in range(number):
        s = Source(random.Random(seed * 1_000_003 + i), "test")
        s.path = engine.path  # type: ignore[attr-defined]  # the long case measures in tokens
        plays.append(maker(s))
    wanted = {i: next(play) for i, play in enumerate(plays)}
    right = 0
    while wanted:
        order = list(wanted)
        prompts = [engine.render(*wanted[i]) for i in order]
        replies = engine.generate_batch(prompts, SamplingParams(max_new_tokens=400))
        for i, reply in zip(order, replies, strict=True):
            history = [dict(m) for m in wanted[i][0]]
            try:
                wanted[i] = plays[i].send(reply.text)
            except StopIteration as end:
                del wanted[i]
                right += bool(end.value)
                if not end.value and show > 0:
                    show -= 1
                    print("   WRONG:", [m.get("content") or m.get("tool_calls") for m in history][-3:], "->", repr(reply.text))
    return right / number


def measure(engine: TinyEngine, seed: int = 20240, scale: float = 1.0, only: str = "", show: int = 0) -> list[tuple[str, int, float]]:
    """Rows of the table: name, number of dialogs, share of whole dialogs right."""
    rows = []
    for name, (number, maker) in CASES.items():
        if only in name:
            count = max(1, int(number * scale))
            rows.append((name, count, success(engine, maker, count, seed, show)))
            print(f"{name:50} {count:4}  {rows[-1][2] * 100:5.1f} %", flush=True)
    return rows


def table(rows: list[tuple[str, int, float]]) -> str:
    lines = ["| held-out task | dialogs | whole dialogs right |", "|---|---|---|"]
    return "\n".join(lines + [f"| {name} | {number} | {share * 100:.1f} % |" for name, number, share in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the dialogs to play")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--show", type=int, default=0, help="wrong replies to print in each case")
    parser.add_argument("--card", action="store_true", help="write the table into the model card")
    parser.add_argument("--seed", type=int, default=20240)
    options = parser.parse_args()
    engine = TinyEngine.load(options.weights)
    began = time.time()
    rows = measure(engine, options.seed, options.scale, options.only, options.show)
    print(f"{sum(n for _, n, _ in rows)} dialogs in {time.time() - began:.0f} s")
    if options.card:
        card = engine.path / "README.md"
        text = card.read_text(encoding="utf-8")
        begin, end = text.index(CARD_BEGIN) + len(CARD_BEGIN), text.index(CARD_END)
        card.write_text(f"{text[:begin]}\n{table(rows)}\n{text[end:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
