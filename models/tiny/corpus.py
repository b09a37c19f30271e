"""The synthetic dialogs the embedded model learns from, made from a seed alone.

Every maker takes a `random.Random` and returns a `Dialog`: the messages a framework would send and receive, the tools that were offered, and
the family it belongs to. Tool results and program outputs are computed for real, except in a share of the turns where they are random on
purpose, so that the model learns to read the result instead of guessing it.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import words

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lagentlike.actions.arithmetic import calculator
from lagentlike.errors import ToolError

__all__ = ["Dialog", "dialogs", "drill", "is_held_out", "MAKERS"]

Message = dict[str, Any]
Tool = dict[str, Any]

SYSTEM_DEFAULT = "You are a helpful assistant."


@dataclass
class Dialog:
    """Messages, tools and family of one conversation.

    `split` is "train" or "test": test dialogs use only held-out words and held-out expressions.
    """

    family: str
    messages: list[Message]
    tools: list[Tool] = field(default_factory=list)


# --------------------------------------------------------------------------------------------------------------------------------------
# The pieces: held-out rule, words, numbers, expressions
# --------------------------------------------------------------------------------------------------------------------------------------


class Source:
    """Random words, topics, numbers and expressions of one split.

    From `stage` 1 on they are closer to what people write: shorter numbers, plainer expressions, usual tool names, fewer tools at once. In
    stage 2 what is learned last comes more often: topics of several words, choosing among like tools, two calls at once, memory beside tools;
    in stage 3 searches and topics of words nobody has seen more often still.

    `pieces` are the word pieces of the tokenizer, which the training script sets: words made of any of them teach copying every token, also
    those that stand in few texts.
    """

    pieces: tuple[str, ...] = ()

    def __init__(self, rng: random.Random, split: str = "train", stage: int = 0) -> None:
        self.rng = rng
        self.split = split
        self.stage = stage

    @property
    def finish(self) -> bool:
        return self.stage > 0

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.random() * len(options))]

    def pseudo(self) -> str:
        """A word that does not exist."""
        kind = self.rng.random()
        if self.pieces and self.chance(0.3):
            word = "".join(self.pick(self.pieces) for _ in range(self.rng.choice((1, 2, 2, 3))))[:16]
        elif kind < 0.75:
            word = "".join(self.pick(words.SYLLABLES) for _ in range(self.rng.choice((2, 2, 3, 3, 4))))
        elif kind < 0.9:
            a, b = self.pick(words.NOUNS), self.pick(words.NOUNS)
            word = a[: self.rng.randint(2, len(a))] + b[self.rng.randint(0, len(b) - 1) :]
        else:
            word = "".join(self.rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(self.rng.randint(3, 8)))
        if self.chance(0.06):
            part = self.pick(words.SYLLABLES)
            word = self.pick((f"{word[:4]}{part}{part}", f"{part}{part}{word[:4]}", f"{word[:3]}{part}{word[3:6]}{part}", f"{part}{part}{part}"))
        return word if word not in words.HELD_OUT else self.pseudo()

    def name(self) -> str:
        """A person's or thing's name, capitalised."""
        if self.split == "test":
            return self.pick([word for word in words.HELD_OUT if word[0].isupper()])
        return self.pick(words.NAMES) if self.chance(0.25) else self.pseudo().capitalize()

    def word(self) -> str:
        """One word in some capitalisation."""
        if self.split == "test":
            return self.pick(words.HELD_OUT)
        word = self.pick(words.NOUNS) if self.chance(0.25 if self.stage == 3 else 0.45) else self.pseudo()
        style = self.rng.random()
        if style < 0.5:
            return word
        if style < 0.88:
            return word.capitalize()
        if style < 0.94:
            return word.upper()[:6]
        if style < 0.97:
            return f"{word[:3].upper()}-{self.rng.randint(1, 999)}"
        return f"{word}{self.pick(words.NOUNS).capitalize()}"

    def topic(self) -> str:
        """What a text or a search is about: one to three words, at times Chinese."""
        kind = self.rng.random()
        if self.split == "test":
            parts = [self.word()] if kind < 0.6 else self.rng.sample(words.HELD_OUT, 2)
            return " ".join(parts)
        if kind < 0.04:
            return "".join(self.rng.sample(words.CHINESE, self.rng.randint(2, 5)))
        if kind < (0.36 if self.stage >= 2 else 0.45):
            return self.word()
        if kind < 0.82:
            return f"{self.word()} {self.word()}"
        if kind < 0.88:
            return f"{self.word()} {self.pick(('and', 'of', 'in', 'for', 'on', 'with'))} {self.word()}"
        if kind < 0.91:
            return f"the {self.word()}"
        if kind < 0.94:
            return f"{self.name()}'s {self.word()}"
        return f"{self.word()} {self.word()} {self.word()}"

    def place(self) -> str:
        if self.split == "train" and self.chance(0.4):
            return str(self.pick(words.CITIES))
        return self.name()

    def integer(self, digits: int = 0) -> int:
        weights = (26, 36, 22, 10, 4, 2) if self.finish else (22, 32, 20, 13, 7, 6)
        digits = digits or self.rng.choices((1, 2, 3, 4, 5, 6), weights)[0]
        return self.rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)

    def like(self, text: str) -> str:
        """A number that shares most of its digits with another, so that copying it needs a look at the whole."""
        digits = [c for c in text if c.isdigit()][:7] or ["7"]
        kind = self.rng.random()
        if kind < 0.3:
            digits[self.rng.randrange(len(digits))] = self.pick("0123456789")
        elif kind < 0.5:
            digits = digits[self.rng.randrange(len(digits)) :]
        elif kind < 0.65:
            digits = [*digits, self.pick("0123456789")]
        elif kind < 0.8:
            digits = [self.pick("123456789"), *digits]
        elif kind < 0.9:
            digits.reverse()
        return str(int("".join(digits[:7])))

    def number(self) -> str:
        if self.chance(0.06):
            return pattern(self)
        value = self.integer()
        if self.chance(0.03 if self.finish else 0.08):
            return f"{value}.{self.rng.randint(1, 99)}"
        return f"-{value}" if self.chance(0.03) else str(value)

    def expression(self, spaced: bool | None = None) -> str:
        """An arithmetic expression whose value Python can compute; held-out ones by checksum."""
        for _ in range(1000):
            text = self._expression(spaced)
            if is_held_out(text) == (self.split == "test") and evaluate(text) is not None:
                return text
        raise RuntimeError("no expression found")

    def _expression(self, spaced: bool | None) -> str:
        rng = self.rng
        gap = " " if (spaced if spaced is not None else self.chance(0.82)) else ""
        kind = rng.random()
        op = lambda: f"{gap}{rng.choices('+-*/', (30, 24, 30, 16))[0]}{gap}"  # noqa: E731
        if self.chance(0.14):
            a = self.number()
            b = self.like(a)
            pair = f"{b}{op()}{a}" if self.chance(0.5) else f"{a}{op()}{b}"
            return f"{pair}{op()}{self.like(b)}" if self.chance(0.3) else pair
        if kind < (0.82 if self.finish else 0.70):
            return f"{self.number()}{op()}{self.number()}"
        if kind < (0.87 if self.finish else 0.82):
            return f"{self.number()}{op()}{self.number()}{op()}{self.number()}"
        if kind < 0.88:
            return f"({self.number()}{op()}{self.number()}){op()}{self.number()}"
        if kind < 0.93:
            return f"{self.number()}{op()}({self.number()}{op()}{self.number()})"
        if kind < 0.96:
            return f"{self.integer(rng.randint(1, 2))}{gap}**{gap}{rng.randint(2, 5)}"
        if kind < 0.98:
            return f"{self.integer()}{gap}{rng.choice(('%', '//'))}{gap}{self.integer(rng.randint(1, 2))}"
        return f"{self.number()}{op()}{self.number()}{op()}{self.number()}{op()}{self.number()}"


def is_held_out(text: str) -> bool:
    """Whether evaluation, and never training, may use this expression."""
    return zlib.crc32(text.replace(" ", "").encode()) % 10 == 0


def evaluate(expression: str) -> str | None:
    """The value of an arithmetic expression as a calculator prints it, or None."""
    try:
        value = str(calculator(expression))
    except ToolError:
        return None
    return value if len(value) <= 24 else None


def run_code(code: str) -> str:
    """What a program of ours prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {"__name__": "__main__"})
    return out.getvalue().strip()


# --------------------------------------------------------------------------------------------------------------------------------------
# System prompts, noise around a request
# --------------------------------------------------------------------------------------------------------------------------------------

SYSTEMS = """You are a helpful assistant.
You are a helpful assistant.
You are a helpful assistant.
You are a helpful AI assistant.
You are an assistant that uses tools.
Use the tools to answer the question.
You are a careful assistant. Use the tools when they help.
Answer the user's question.
You are a friendly agent.
Be brief.
You are TinyLM.
You can call tools.
Solve the task with the tools you have.
You are an agent. Think, call a tool, then answer.
Help the user as well as you can.
你是一个有用的助手。
You are Qwen, created by Alibaba Cloud. You are a helpful assistant.
You are a math tutor.
You are a research assistant.
Answer with the help of tools and give a short final answer.""".split("\n")

OPENERS = ("Hi! ", "Hello, ", "Hey, ", "Please help: ", "Quick question: ", "Question: ", "OK. ", "Now ", "Next: ", "Good morning. ", "And ", "So, ")
CLOSERS = (" Thanks!", " Thank you.", " please", " Please.", " Use a tool.", " Be quick.", " I am curious.", " Answer shortly.", " Thanks in advance.")


def system_prompt(s: Source) -> list[Message]:
    kind = s.rng.random()
    if kind < 0.25:
        return []
    if kind < 0.85:
        return [{"role": "system", "content": s.pick(SYSTEMS)}]
    noun, name = s.word(), s.name()
    text = s.pick(
        (
            f"You are {name}, an assistant for {noun}.",
            f"You are {name}. Be friendly and precise.",
            f"You work for {name} {noun}. Use the tools when needed.",
            f"Your name is {name}. Today you help with {noun}.",
            f"You are a {noun} expert. Answer the questions of {name}.",
        )
    )
    messages = [{"role": "system", "content": text}]
    if s.chance(0.2):
        messages.append({"role": "system", "content": s.pick(SYSTEMS)})
    return messages


def noisy(s: Source, text: str) -> str:
    """The request with the small talk people put around it."""
    if s.chance(0.15):
        text = s.pick(OPENERS) + text
    if s.chance(0.12):
        text = text + s.pick(CLOSERS)
    if s.chance(0.07):
        text = (
            s.pick((f"I am {s.name()}. ", f"I was at the {s.word()} with {s.name()}. ", f"My {s.word()} asked me this. ", f"{s.name()} wants to know. ")) + text
        )
    if s.chance(0.06):
        text = text[0].lower() + text[1:]
    return text


# --------------------------------------------------------------------------------------------------------------------------------------
# Tools: a schema, and turns that use it
# --------------------------------------------------------------------------------------------------------------------------------------


@dataclass
class Kit:
    """One offered tool: its schema and the maker of a turn that uses it."""

    kind: str
    schema: Tool
    argument: Callable[[Source], Use]
    about: str = ""


@dataclass
class Use:
    """One question a tool can answer: the question, the call, the result and what to say then."""

    question: str
    name: str
    arguments: dict[str, Any]
    result: str
    answer: Callable[[str], str]
    random_result: Callable[[Source], str]


def identifier(s: Source, known: tuple[str, ...], renamed: float = 0.5) -> str:
    """A function or argument name: a usual one, or one nobody has seen."""
    if not s.chance(renamed * 0.6 if s.finish else renamed):
        return str(s.pick(known))
    style = s.rng.random()
    part = lambda: s.pseudo() if s.chance(0.6) else str(s.pick(words.NOUNS))  # noqa: E731
    if style < 0.35:
        return part()
    if style < 0.6:
        return f"{part()}_{part()}"
    if style < 0.7:
        return f"{part()}.{part()}"
    if style < 0.8:
        return f"{part().capitalize()}{part().capitalize()}"
    if style < 0.88:
        return f"{part()}{part().capitalize()}"
    if style < 0.94:
        return f"{part()}_{s.rng.randint(1, 9)}"
    return f"{s.pick(known)}_{part()}"


def schema(s: Source, name: str, description: str, arguments: dict[str, tuple[str, str]]) -> Tool:
    """A JSON schema in one of the shapes frameworks write."""
    properties: dict[str, Any] = {}
    style = s.rng.random()
    for argument, (kind, text) in arguments.items():
        prop: dict[str, Any] = {"type": kind}
        if style < 0.65 and text:
            prop["description"] = text
        elif style < 0.75:
            prop = {"title": argument.capitalize(), "type": kind}
        elif style < 0.8 and text:
            prop = {"description": text, "type": kind}
        properties[argument] = prop
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": list(arguments)}
    if s.chance(0.1):
        parameters["additionalProperties"] = False
    if s.chance(0.06):
        parameters = {"properties": properties, "required": list(arguments), "type": "object"}
    function: dict[str, Any] = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


CALC_NAMES = ("calculator", "calculator", "calculator", "calc", "math.evaluate", "evaluate", "compute", "calculate", "Calculator", "math", "eval_expression")
CALC_ARGS = ("expression", "expression", "expression", "expr", "input", "formula", "query", "equation", "text", "problem")
CALC_ABOUT = (
    "Evaluate an arithmetic expression.",
    "Evaluate an arithmetic expression.",
    "Evaluates a mathematical expression and returns the result.",
    "Calculate the result of a mathematical expression.",
    "A calculator.",
    "Computes the value of an expression.",
    "Do arithmetic.",
    "Compute a math expression such as 2 + 3.",
    "Calculates numbers.",
    "Work out sums, products and other arithmetic.",
    "Calculate an expression safely.",
    "Returns the value of a formula.",
)
CALC_ARG_ABOUT = ("The expression.", "The arithmetic expression to evaluate.", "A mathematical expression, e.g. 1 + 2.", "Expression to compute", "What to calculate.", "")
CALC_ASK = """What is the result of {e}?
What is the result of {e}?
What is {e}?
What is {e}?
Calculate {e}
Calculate {e}.
Compute {e}.
Compute {e}
How much is {e}?
{e}
{e} = ?
{e}=?
Evaluate {e}
Evaluate {e}.
Please calculate {e}.
Please compute {e}
Can you work out {e}?
Can you calculate {e}?
Tell me the value of {e}.
What is the value of {e}?
What's {e}?
What does {e} equal?
Use the calculator: {e}
Use the calculator to compute {e}.
Could you compute {e} for me?
Solve {e}
Solve: {e}
Give me the result of {e}.
Find {e}.
Find the value of {e}.
What does {e} come to?
What do you get for {e}?
I would like to know {e}.
I need the result of {e}.
请计算 {e}
计算 {e}
{e} 等于多少？
Work out {e}.
Do the math: {e}
How many is {e}?
Result of {e}?
The result of {e} is what?
Add it up: {e}
Tell me {e}.
Do you know what {e} is?
My homework says {e}. What is it?
Determine {e}.
Simplify {e}.
Check {e} for me.
Answer this: {e}""".split("\n")
LITTLE = "what would be could you tell me makes i have to know the of kindly now please give a go someone asked for any idea let us see run through how about number is figure out exact do it my this that with when he she they want get here today".split()
WORDED = {"+": ("plus",), "-": ("minus",), "*": ("times", "multiplied by"), "/": ("divided by",)}


def calculation(s: Source) -> tuple[str, str]:
    """A question and the expression it is about."""
    if s.chance(0.1):
        op = s.pick("+-*/")
        for _ in range(1000):
            a, b = s.integer(), s.integer()
            text = f"{a} {op} {b}"
            if is_held_out(text) == (s.split == "test") and evaluate(text) is not None:
                return s.pick(CALC_ASK[:30]).format(e=f"{a} {s.pick(WORDED[op])} {b}"), text
    text = s.expression()
    if s.split == "train" and s.chance(0.16):
        return carried(s, text), text
    return s.pick(CALC_ASK).format(e=text), text


def carried(s: Source, text: str) -> str:
    """An expression inside words that mean nothing, so that it is found in phrasings nobody has trained."""
    some = lambda low, high: " ".join(str(s.pick(words.NOUNS)) if s.chance(0.6) else s.pick(LITTLE) for _ in range(s.rng.randint(low, high)))  # noqa: E731
    before, after = some(0, 5), some(0, 4)
    end = s.pick(("?", ".", "", "", ", please?", "!")) if not after else s.pick(("?", ".", ""))
    before = before.capitalize() if before else ""
    mark = s.pick((" ", " ", " ", ": ", ", ")) if before else ""
    tail = s.pick((" ", " ", ". ", ", ", "? ")) + after if after else ""
    return f"{before}{mark}{text}{tail}{end}"


def pattern(s: Source) -> str:
    """A number of few different digits, such as 5050, 777 or 1212.5: what is copied badly by looking at the last digits alone."""
    digits = "".join(s.pick("0123456789") for _ in range(s.rng.choices((1, 2, 3), (40, 40, 20))[0]))
    text = (digits * 8)[: s.rng.randint(2, 7)]
    if s.chance(0.2):
        text = f"{s.rng.randint(0, 99)}.{text}"
    elif s.chance(0.3):
        text += "0" * s.rng.randint(1, 3)
    return text if text.startswith("0.") else text.lstrip("0") or "0"


def random_number(s: Source) -> str:
    kind = s.rng.random()
    if kind < 0.6:
        return str(s.integer())
    if kind < 0.75:
        return f"{s.integer()}.{s.rng.randint(0, 999)}"
    if kind < 0.8:
        return str(evaluate(f"{s.integer()} / {max(1, s.integer())}"))
    if kind < 0.85:
        return pattern(s)
    if kind < 0.93:
        return str(-s.integer())
    return f"{s.integer()}.0"


def calculator_kit(s: Source, renamed: float = 0.45) -> Kit:
    name, argument = identifier(s, CALC_NAMES, renamed), identifier(s, CALC_ARGS, renamed * 0.78)
    tool = schema(s, name, s.pick(CALC_ABOUT), {argument: ("string", s.pick(CALC_ARG_ABOUT))})

    def use(s: Source) -> Use:
        question, text = calculation(s)
        return Use(question, name, {argument: text}, str(evaluate(text)), lambda r: f"The result of {text} is {r}.", random_number)

    return Kit("calculator", tool, use)


BINARY = {
    "+": (("add", "sum", "plus", "add_numbers"), ("Add two numbers.", "Add a and b.", "Returns the sum of two integers.")),
    "-": (("subtract", "minus", "sub"), ("Subtract two numbers.", "Subtract b from a.", "Returns the difference of two integers.")),
    "*": (("multiply", "times", "mul", "product"), ("Multiply two numbers.", "Multiply a by b.", "Returns the product of two integers.")),
    "/": (("divide", "div"), ("Divide two numbers.", "Divide a by b.", "Returns the quotient of two integers.")),
}


def binary_kit(s: Source, op: str = "", renamed: float = 0.3) -> Kit:
    op = op or s.pick("++-**/")
    names, about = BINARY[op]
    name = identifier(s, names, renamed)
    first, second = s.pick((("a", "b"), ("a", "b"), ("x", "y"), ("first", "second"), ("num1", "num2"), ("m", "n")))
    if s.chance(0.2):
        first, second = s.pseudo(), s.pseudo()
        second = second if second != first else second + "2"
    kind = s.pick(("integer", "integer", "number"))
    tool = schema(s, name, s.pick(about), {first: (kind, s.pick(("First number.", ""))), second: (kind, s.pick(("Second number.", "")))})

    def use(s: Source) -> Use:
        for _ in range(1000):
            a, b = s.integer(), max(1, s.integer())
            text = f"{a} {op} {b}"
            if is_held_out(text) == (s.split == "test"):
                break
        shown = f"{a} {s.pick(WORDED[op])} {b}" if s.chance(0.2) else text
        return Use(s.pick(CALC_ASK[:30]).format(e=shown), name, {first: a, second: b}, str(evaluate(text)), lambda r: f"The result of {text} is {r}.", random_number)

    return Kit("binary", tool, use)


SEARCH_NAMES = ("search", "search", "web_search", "google_search", "lookup", "wiki", "Search", "browser.search", "find", "search_web", "retrieve", "WebBrowser.search", "knowledge")
SEARCH_ARGS = ("query", "query", "query", "q", "text", "input", "keyword", "topic", "question", "term")
SEARCH_ABOUT = (
    "Search the web.",
    "Search for information.",
    "Look something up.",
    "Search the internet and return the results.",
    "Searches an encyclopedia.",
    "Find facts about a topic.",
    "Query a search engine.",
    "Retrieve a passage about the query.",
    "Looks up a topic in Wikipedia.",
    "Returns documents for a query.",
)
SEARCH_ARG_ABOUT = ("The query.", "What to search for.", "Search keywords.", "The topic to look up.", "")
SEARCH_ASK = """Search for {t}.
Search for {t}
Search {t}
Look up {t}.
Look up {t}
What is {t}?
Who is {t}?
Tell me about {t}.
Tell me about {t}
Find information about {t}.
Find information on {t}.
What do you know about {t}?
Can you look up {t}?
Can you find out about {t}?
Please search for {t}.
I want to know about {t}.
What are {t}?
Google {t}
Explain {t}.
Find {t}.
Research {t}.
Fetch {t}.
Give me some facts about {t}.
What can you find about {t}?
Who was {t}?
What does {t} mean?
Do a search on {t}.
I need information about {t}
Let me know about {t}.
Search the web for {t}.
搜索 {t}
查一下 {t}
{t} 是什么？
Query: {t}
Describe {t}.
Look for {t}.
Please look up {t}.
Could you search for {t}?
Use the search tool to find {t}.
What is the meaning of {t}?""".split("\n")
SEARCH_VERBS = ("Find", "Get", "Collect", "Give me", "Show me", "Bring me", "Read", "Search for", "Look for", "Fetch", "Ask for", "Gather")
SEARCH_OBJECTS = ("information", "news", "details", "articles", "a summary", "data", "an overview", "anything", "everything", "pages", "notes", "a report", "background", "material")
SEARCH_FRAMES = (
    "{v} {o} {p} {t}.", "{v} {o} {p} {t}", "Please {w} {o} {p} {t}.", "Can you {w} {o} {p} {t}?", "Would you {w} {o} {p} {t}?", "I want you to {w} {o} {p} {t}.",
    "I am looking for {o} {p} {t}.", "Is there {o} {p} {t}?", "We need {o} {p} {t}.", "Go and {w} {o} {p} {t}.", "Let us {w} {o} {p} {t}.",
)  # fmt: skip


SEARCH_WISHES = ("I want to", "I would like to", "I have to", "We should", "Help me", "Could you help me", "Let me", "My friend wants to", "It would be nice to", "Now I must", "Can we", "Please let us")
SEARCH_AIMS = (
    "read about {t}", "know what {t} is", "understand {t}", "know more about {t}", "hear about {t}", "see what is written about {t}", "find out what {t} means", "get to know {t}",
    "collect facts on {t}", "write about {t}", "find {t} on the internet", "check what {t} is", "discover {t}", "see {t}", "study {t}", "get news of {t}",
)  # fmt: skip
SEARCH_SHORT = (
    "Any news on {t}?", "I am curious about {t}.", "Inform me about {t}.", "What is known about {t}?", "Have a look at {t}.", "Investigate {t}, please.", "Go online and look for {t}.",
    "What can you say about {t}?", "Is there more about {t}?", "Browse for {t}.", "{t}: what is it?", "Who knows {t}?", "Ever heard of {t}?", "Something about {t}, please.", "Facts about {t}?",
    "Is {t} famous?", "I heard of {t}. What is it?", "My teacher asked about {t}.", "How does {t} work?", "Where does {t} come from?", "Get me something about {t}.", "Check {t} on the web.",
)  # fmt: skip


def search_question(s: Source, topic: str) -> str:
    """A request to look the topic up, in a fixed phrasing or a composed one."""
    if s.split == "test" or not s.chance(0.45):
        return str(s.pick(SEARCH_ASK)).format(t=topic)
    if s.chance(0.3):
        return f"{s.pick(SEARCH_WISHES)} {s.pick(SEARCH_AIMS).format(t=topic)}{s.pick(('.', '.', '?', '', ' today.', ', please.'))}"
    if s.chance(0.4):
        return str(s.pick(SEARCH_SHORT)).format(t=topic)
    verb = s.pick(SEARCH_VERBS)
    frame = s.pick(SEARCH_FRAMES)
    return str(frame).format(v=verb, w=verb[0].lower() + verb[1:], o=s.pick(SEARCH_OBJECTS), p=s.pick(("about", "on", "regarding", "concerning", "about")), t=topic)


FACT = """{T} is a {a} {n} from {p}.
{T} was founded by {p} in {y}.
{T} is known for its {a} {n}.
{T} was a {n} who lived in {p}.
{T} has {d} {n}s and one {a} {m}.
The {n} of {T} was built in {y} by {p}.
In {y}, {p} found that {T} is a {n}.
{T} means {a} {n} in the language of {p}.
Most people use {T} for {n} and {m}.
{T} has a population of {d}.
{p} wrote about {T} in {y}.
{T} is part of {p}.
The first {T} was made in {y}.
{T}: {a}, {n}, {m}
{d}
{p}
The answer is {p}.
A {n} is a {a} {m} of {p}.""".split("\n")


def fact(s: Source, topic: str) -> str:
    """A made-up sentence, now and then on something else than the topic."""
    subject = topic if s.chance(0.75) else s.topic()
    text = s.pick(FACT).format(
        T=subject, a=s.pick(words.NOUNS), n=s.pick(words.NOUNS), m=s.pick(words.NOUNS), p=s.name(), y=s.rng.randint(1200, 2025), d=s.integer()
    )
    return str(text)


def search_result(s: Source, topic: str) -> str:
    """A sentence or two, or several results in one of the shapes that search tools return."""
    kind = s.rng.random()
    if kind < 0.6:
        return fact(s, topic)
    if kind < 0.75:
        return f"{fact(s, topic)} {fact(s, topic)}"
    texts = [fact(s, topic) for _ in range(s.rng.randint(2, 3))]
    if kind < 0.83:
        return "\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1))
    if kind < 0.9:
        return "\n".join(texts)
    if kind < 0.95:
        pages = {str(i): {"url": f"https://{s.word().lower().replace(' ', '')}.com", "summ": text, "title": s.topic()} for i, text in enumerate(texts)}
        return json.dumps(pages, ensure_ascii=False)
    return json.dumps(texts, ensure_ascii=False)


def search_answer(result: str) -> str:
    """What the model says after a search: the result, or the first of several."""
    if not result.strip() or result.lower().startswith(("no results", "nothing found")):
        return "The search found nothing."
    if result.startswith('{"0":'):
        result = json.loads(result)["0"]["summ"]
    elif result.startswith('["'):
        result = json.loads(result)[0]
    return f"I found this: {result.splitlines()[0].removeprefix('1. ')}"


def search_kit(s: Source, renamed: float = 0.4) -> Kit:
    name, argument = identifier(s, SEARCH_NAMES, renamed), identifier(s, SEARCH_ARGS, renamed * 0.75)
    tool = schema(s, name, s.pick(SEARCH_ABOUT), {argument: ("string", s.pick(SEARCH_ARG_ABOUT))})

    def use(s: Source) -> Use:
        topic = s.topic()
        if s.chance(0.08):
            topic = f"the {s.pick(words.NOUNS)} of {topic}"
        result = s.pick(("No results.", "No results found.")) if s.chance(0.03) else search_result(s, topic)
        return Use(search_question(s, topic), name, {argument: topic}, result, search_answer, lambda s: search_result(s, topic))

    return Kit("search", tool, use)


WEATHER_ASK = """What is the weather in {c}?
How is the weather in {c}?
Weather in {c}?
Tell me the weather in {c}.
What's the weather like in {c}?
Is it sunny in {c}?
What is the weather in {c} today?
Check the weather in {c}.
How warm is it in {c}?
Will it rain in {c}?
Get the weather for {c}.
Forecast for {c}""".split("\n")
SKIES = ("sunny", "cloudy", "rain", "snow", "windy", "foggy", "clear", "storm", "Sunny", "Cloudy", "Light rain", "Clear sky")


def weather_result(s: Source) -> str:
    sky, degrees = s.pick(SKIES), s.rng.randint(-20, 42)
    return str(s.pick((f"{sky}, {degrees} degrees", f"{sky}, {degrees}°C", f"{sky}", f"{degrees} degrees and {sky}", f"{sky} {degrees}C", s.word())))


def weather_kit(s: Source, renamed: float = 0.4) -> Kit:
    name = identifier(s, ("weather", "get_weather", "get_weather", "forecast", "current_weather"), renamed)
    argument = identifier(s, ("city", "city", "location", "place"), renamed * 0.62)
    tool = schema(s, name, s.pick(("Get the weather of a city.", "Current weather for a city.", "Weather forecast.", "Returns the weather at a place.")), {argument: ("string", s.pick(("The city.", "City name, e.g. Paris.", "")))})

    def use(s: Source) -> Use:
        city = s.place()
        return Use(s.pick(WEATHER_ASK).format(c=city), name, {argument: city}, weather_result(s), lambda r: f"The weather in {city}: {r}", lambda s: weather_result(s))

    return Kit("weather", tool, use)


ATTRIBUTES = "capital price population owner color size age height weight author director phone email address status stock score rank code color balance temperature length speed name meaning translation synonym currency leader birthday level rating grade mass radius date".split()
ATTRIBUTE_ASK = """What is the {a} of {t}?
What is the {a} of {t}?
Tell me the {a} of {t}.
Get the {a} of {t}.
I need the {a} of {t}.
Find the {a} of {t}.
Give me the {a} of {t}.
{a} of {t}?
Look up the {a} of {t}.
Can you get the {a} of {t}?
Do you know the {a} of {t}?
Please find the {a} of {t}.""".split("\n")


def attribute_kit(s: Source, renamed: float = 0.4) -> Kit:
    attribute = s.pick(ATTRIBUTES) if s.chance(0.6) else s.pick((s.pseudo(), str(s.pick(words.NOUNS))))
    noun = s.pick(("item", "country", "word", "person", "city", "user", "order", "product", "file", "book", str(s.pick(words.NOUNS)), s.pseudo()))
    name = identifier(s, (f"get_{attribute}", f"{attribute}_of", f"lookup_{attribute}", attribute, f"{noun}_{attribute}", f"find_{attribute}"), renamed)
    argument = identifier(s, (noun, "name", "key", "id", "item"), renamed * 0.62)
    about = s.pick((f"Get the {attribute} of a {noun}.", f"Look up the {attribute} of a {noun}.", f"Returns the {attribute} of the given {noun}.", f"Find the {attribute} of any {noun}."))
    tool = schema(s, name, about, {argument: ("string", s.pick((f"The {noun}.", f"Name of the {noun}.", "")))})

    def result(s: Source) -> str:
        return str(s.pick((s.word(), s.name(), str(s.integer()), f"{s.integer()} {s.pick(words.NOUNS)}s", s.topic(), random_number(s))))

    def use(s: Source) -> Use:
        thing = s.word() if s.chance(0.6) else s.topic()
        return Use(s.pick(ATTRIBUTE_ASK).format(a=attribute, t=thing), name, {argument: thing}, result(s), lambda r: f"The {attribute} of {thing} is {r}.", result)

    return Kit("attribute", tool, use, attribute)


def python_kit(s: Source, renamed: float = 0.3) -> Kit:
    name = identifier(s, ("python", "python", "code_interpreter", "run_python", "execute_code", "IPythonInteractive", "interpreter", "PythonInterpreter"), renamed)
    argument = identifier(s, ("code", "code", "code", "command", "script", "source"), renamed * 0.67)
    about = s.pick(("Run Python code.", "Execute Python code and return the output.", "A Python interpreter.", "Runs code in a Jupyter kernel.", "Execute a Python program and return what it prints."))
    tool = schema(s, name, about, {argument: ("string", s.pick(("The code.", "Python code to run.", "The program.", "")))})

    def use(s: Source) -> Use:
        if s.chance(0.4):
            question, text = calculation(s)
            code = printed(text)
            return Use(question, name, {argument: code}, run_code(code), lambda r: f"The result of {text} is {r}.", random_number)
        task = program(s)
        return Use(task.question, name, {argument: task.code}, task.output, lambda r: f"The answer is {r}.", random_number)

    return Kit("python", tool, use)


def file_name(s: Source) -> str:
    stem = s.word().lower().replace(" ", "_")
    return s.pick(("", "", "", "/tmp/", "data/", "./", f"{s.pick(words.NOUNS)}/")) + f"{stem}.{s.pick(('txt', 'txt', 'md', 'py', 'json', 'csv', 'log'))}"


def read_kit(s: Source, renamed: float = 0.3) -> Kit:
    name, argument = identifier(s, ("read_file", "read_file", "cat", "open_file", "file_read", "view_file"), renamed), identifier(s, ("path", "path", "file", "filename", "file_path"), renamed * 0.6)
    tool = schema(s, name, s.pick(("Read a file.", "Read the contents of a file.", "Returns the text of a file.", "Open a file and return its text.")), {argument: ("string", s.pick(("The path.", "Path of the file.", "")))})

    def result(s: Source) -> str:
        return str(s.pick((s.topic(), fact(s, s.topic()), str(s.integer()), scramble(s))))

    def use(s: Source) -> Use:
        path = file_name(s)
        ask = ("Read {f}.", "Read the file {f}.", "Show me {f}.", "What is in {f}?", "Open {f}.", "What does {f} contain?", "Print the contents of {f}", "cat {f}", "Please read {f}", "What does the file {f} say?")
        return Use(s.pick(ask).format(f=path), name, {argument: path}, result(s), lambda r: f"The file {path} contains: {r}", result)

    return Kit("read", tool, use)


def write_kit(s: Source, renamed: float = 0.3) -> Kit:
    name = identifier(s, ("write_file", "write_file", "save_file", "create_file", "file_write"), renamed)
    path_name, text_name = s.pick((("path", "content"), ("path", "content"), ("path", "text"), ("file", "content"), ("filename", "text"), ("file_path", "content")))
    tool = schema(s, name, s.pick(("Write a file.", "Write text to a file.", "Create a file with the given content.", "Save text in a file.")), {path_name: ("string", s.pick(("The path.", ""))), text_name: ("string", s.pick(("The text.", "")))})

    def use(s: Source) -> Use:
        path, text = file_name(s), s.pick((s.topic(), s.topic(), s.word(), str(s.integer()), fact(s, s.topic())))
        ask = ("Write {x} to {f}.", "Write {x} into {f}", 'Write "{x}" to the file {f}.', "Save {x} in {f}.", "Create {f} with the text {x}", 'Create the file {f} with the content "{x}".', "Put {x} into {f}.", "Store {x} in the file {f}")
        result = s.pick(("ok", "Done.", f"Wrote {len(text)} bytes", "File written.", "success", "True", f"Wrote {path}"))
        return Use(s.pick(ask).format(x=text.rstrip("."), f=path), name, {path_name: path, text_name: text.rstrip(".")}, result, lambda r: f"Done, {path} is written.", lambda s: result)

    return Kit("write", tool, use)


def terminal_kit(s: Source, renamed: float = 0.25) -> Kit:
    name, argument = identifier(s, ("terminal", "terminal", "bash", "shell", "run_command", "execute"), renamed), identifier(s, ("command", "command", "cmd", "input"), renamed * 0.6)
    tool = schema(s, name, s.pick(("Run a shell command.", "Execute a command in the terminal.", "Run a command and return its output.", "A bash shell.")), {argument: ("string", s.pick(("The command.", "Shell command to run.", "")))})

    def result(s: Source) -> str:
        return str(s.pick((s.word(), f"{s.word()}\n{s.word()}", str(s.integer()), scramble(s), file_name(s), f"{file_name(s)}\n{file_name(s)}")))

    def use(s: Source) -> Use:
        kind, w, f = s.rng.random(), s.word().replace('"', ""), file_name(s)
        if kind < 0.6:
            command = s.pick(("ls", "ls -la", "pwd", "whoami", "date", f"echo {w}", f"echo {s.topic()}", f"cat {f}", f"ls {s.pick(words.NOUNS)}", f"mkdir {w}", f"rm {f}", f"wc -l {f}", f"grep {w} {f}", "uname -a", f"touch {f}", f"head -n {s.rng.randint(1, 20)} {f}", f"python {f}", "df -h", f"git log -{s.rng.randint(1, 9)}"))
            question = s.pick(("Run {c}", "Run the command {c}", "Execute {c}", "Run `{c}`.", "Please run {c}", "What does {c} print?", "Run this command: {c}", "Execute the command `{c}`", "Use the terminal: {c}", "In the shell, run {c}")).format(c=command)
        else:
            questions, command = s.pick(((("List the files.", "Which files are here?", "Show the files in this folder.", "What files are there?", "List all files in the current directory."), "ls"), (("Where am I?", "Which directory is this?", "Print the working directory.", "What is the current directory?"), "pwd"), ((f"Print {w}.", f"Say {w} in the shell.", f"Echo {w}"), f"echo {w}"), ((f"Make a folder {w}.", f"Create the directory {w}."), f"mkdir {w}"), ((f"Delete {f}.", f"Remove the file {f}."), f"rm {f}"), ((f"How many lines has {f}?", f"Count the lines of {f}."), f"wc -l {f}"), ((f"Find {w} in {f}.", f"Look for {w} in {f}."), f"grep {w} {f}")))
            question = s.pick(questions)
        return Use(question, name, {argument: command}, result(s), lambda r: f"The output is: {r}", result)

    return Kit("terminal", tool, use)


KITS = (
    *(calculator_kit,) * 6, *(search_kit,) * 6, *(attribute_kit,) * 5, *(weather_kit,) * 3, *(binary_kit,) * 3, *(python_kit,) * 3,
    read_kit, write_kit, terminal_kit,
)  # fmt: skip
FINISH_KITS = (
    *(calculator_kit,) * 8, *(search_kit,) * 9, *(attribute_kit,) * 4, *(weather_kit,) * 3, *(binary_kit,) * 4, *(python_kit,) * 3,
    read_kit, write_kit, terminal_kit,
)  # fmt: skip
LAST_KITS = (*FINISH_KITS, *(search_kit,) * 8)
ERRORS = (
    "Error: {w}",
    "Error: the {w} is not available",
    "Error: invalid {w}",
    "ERROR: {w} failed",
    "Error: timeout after {d} seconds",
    "Error: division by zero",
    "Error: unknown {w}",
    "error: could not reach {w}",
    "TimeoutError: {w} took too long",
    "Error: permission denied",
)


def call(name: str, arguments: dict[str, Any]) -> Message:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def tool_turn(s: Source, kit: Kit) -> list[Message]:
    """A question, the call, the result, the answer."""
    use = kit.argument(s)
    result = use.random_result(s) if s.split == "train" and s.chance(0.25) else use.result
    answer = use.answer(result)
    error = s.chance(0.05)
    if error:
        result = s.pick(ERRORS).format(w=s.word(), d=s.rng.randint(2, 90))
        answer = f"Sorry, the tool failed. {result}"
    if s.split == "train" and s.chance(0.08):
        result = in_json(s, result, error)
    return [
        {"role": "user", "content": noisy(s, use.question)},
        {"role": "assistant", "content": "", "tool_calls": [call(use.name, use.arguments)]},
        {"role": "tool", "content": result},
        {"role": "assistant", "content": answer},
    ]


def in_json(s: Source, result: str, error: bool = False) -> str:
    """A result as the JSON object that many tools and environments return."""
    number = f'{s.rng.getrandbits(128):032x}'
    if error:
        shown = s.pick(({"success": False, "error": result}, {"success": False, "output": "", "error": result}, {"error": result}, {"success": False, "output": "", "error": result, "metadata": {}}))
    else:
        shown = s.pick(({"success": True, "output": result}, {"success": True, "output": result, "error": ""}, {"success": True, "output": result, "error": None, "metadata": {}}, {"output": result}, {"result": result}, {"output": result, "exit_code": 0}))
    if s.chance(0.2):
        shown = {**shown, s.pick(("uniq_id", "id", "call_id")): number}
    return json.dumps(shown, ensure_ascii=False)


def double_turn(s: Source, kit: Kit) -> list[Message]:
    """Two things asked at once, two calls in one message."""
    first, second = kit.argument(s), kit.argument(s)
    bare = [text.rstrip(".?!") for text in (first.question, second.question)]
    question = s.pick((f"{bare[0]}, and {bare[1][0].lower()}{bare[1][1:]}?", f"{first.question} And {bare[1][0].lower()}{bare[1][1:]}?", f"{bare[0]}. Also: {bare[1]}.", f"1. {bare[0]}\n2. {bare[1]}"))
    if kit.kind == "calculator" and s.chance(0.5):
        e, f = (next(iter(use.arguments.values())) for use in (first, second))
        question = s.pick(("What is {e} and what is {f}?", "Compute {e} and {f}.", "What are the results of {e} and {f}?", "Calculate {e} and also {f}.", "What is {e}, and {f}?")).format(e=e, f=f)
    elif kit.kind in ("weather", "search") and s.chance(0.6):
        e, f = (next(iter(use.arguments.values())) for use in (first, second))
        ask = ("What is the weather in {e} and {f}?", "Compare the weather in {e} and in {f}.") if kit.kind == "weather" else ("Search for {e} and also for {f}.", "Look up {e}, and look up {f}.")
        question = s.pick(ask).format(e=e, f=f)
    results = [use.random_result(s) if s.split == "train" and s.chance(0.25) else use.result for use in (first, second)]
    return [
        {"role": "user", "content": noisy(s, question)},
        {"role": "assistant", "content": "", "tool_calls": [call(first.name, first.arguments), call(second.name, second.arguments)]},
        {"role": "tool", "content": results[0]},
        {"role": "tool", "content": results[1]},
        {"role": "assistant", "content": f"{first.answer(results[0])} {second.answer(results[1])}"},
    ]


def no_fit_turn(s: Source, kinds: set[str]) -> list[Message]:
    """A question none of the offered tools can answer."""
    if not kinds & {"calculator", "binary", "python"} and s.chance(0.6):
        question, _ = calculation(s)
        return exchange(noisy(s, question), "I need a calculator tool for that.")
    if not kinds & {"search", "weather", "attribute"} and s.chance(0.7):
        question = s.pick(SEARCH_ASK[:26]).format(t=s.topic())
        return exchange(noisy(s, question), "I need a search tool for that.")
    return chat_turn(s)


def tools_dialog(s: Source, makers: tuple[Callable[..., Kit], ...] = (), turns: int = 0) -> Dialog:
    """One to seven turns over one to six offered tools."""
    count = s.rng.choices((1, 2, 3, 4, 5, 6), (44, 24, 24, 6, 1, 1) if s.finish else (50, 26, 14, 6, 2, 2))[0]
    kits: list[Kit] = []
    while len(kits) < count:
        maker = makers[len(kits)] if len(kits) < len(makers) else s.pick((KITS, FINISH_KITS, FINISH_KITS, LAST_KITS)[s.stage])
        kit = maker(s)
        taken = {other.kind for other in kits}
        clash = kit.kind in taken or (kit.kind in {"calculator", "binary"} and taken & {"calculator", "binary", "python"}) or (kit.kind == "python" and taken & {"calculator", "binary"} and s.chance(0.5))
        if kit.schema["function"]["name"] in {other.schema["function"]["name"] for other in kits} or (clash and kit.kind not in {"attribute", "binary"}):
            if len(kits) >= len(makers) or len(makers) == 0:
                count -= 1
            continue
        kits.append(kit)
    main = kits[0]
    if not makers and s.chance(0.3 if s.stage >= 2 else 0.15):
        kits = like_kits(s) if s.chance(0.4) else unlike_kits(s)
        main = kits[0]
    if main.kind == "binary" and s.chance(0.85) and not makers:
        others = [kit for kit in (binary_kit(s, op, s.pick((0.3, 1.0))) for op in s.rng.sample("+-*/", 4)) if _distinct(kit, main)]
        kits = [main, *others[: s.rng.randint(1, 3)]]
        kits = _unique(kits)
    s.rng.shuffle(kits)
    kinds = {kit.kind for kit in kits}
    tools = [kit.schema for kit in kits]
    if not makers and s.chance(0.03):
        names = {tool["function"]["name"] for tool in tools}
        tools += [tool for tool in (bystander(s) for _ in range(s.rng.randint(2, 14))) if tool["function"]["name"] not in names]
        s.rng.shuffle(tools)
    messages = system_prompt(s)
    known: dict[str, str] = {}
    if s.stage >= 2 and s.chance(0.09):
        turns = s.rng.randint(8, 20)
    for _ in range(turns or s.rng.choices((1, 2, 3, 4, 5, 6, 7), (16, 24, 24, 17, 10, 6, 3))[0]):
        kind = s.rng.random()
        kit = main if s.chance(0.3) else s.pick(kits)
        if kit.kind == "python" and kinds & {"calculator", "binary"}:
            kit = next(k for k in kits if k.kind in {"calculator", "binary"})
        if kind < (0.67 if s.stage >= 2 else 0.79):
            messages += tool_turn(s, kit)
        elif kind < (0.83 if s.stage >= 2 else 0.87):
            messages += double_turn(s, kit)
        elif kind < (0.89 if s.stage >= 2 else 0.94):
            messages += no_fit_turn(s, kinds)
        elif kind < (0.91 if s.stage >= 2 else 0.97):
            messages += chat_turn(s)
        else:
            messages += memory_turn(s, known)
    return Dialog("tools", messages, tools)


def bystander(s: Source) -> Tool:
    """A tool that nobody asks for, with as much to read as real ones have."""
    noun = lambda: s.pseudo() if s.chance(0.3) else str(s.pick(words.NOUNS))  # noqa: E731
    verb = s.pick(("Create", "Delete", "Update", "List", "Move", "Copy", "Send", "Start", "Stop", "Watch", "Merge", "Archive", "Rename", "Sort", "Share", "Remember", "Plan", "Inspect", "Ask", "Close"))
    about = f"{verb} {s.pick(('a', 'the', 'one', 'every'))} {noun()}" + s.pick((".", f" of a {noun()}.", f" in the {noun()}. Use it when the {noun()} is not {noun()}.", f". The {noun()} is kept between calls; give `{noun()}` to see more of it."))
    arguments = {noun(): (s.pick(("string", "string", "integer", "boolean", "number")), s.pick((f"The {noun()}.", f"Which {noun()} to use; the {noun()} by default.", ""))) for _ in range(s.rng.randint(0, 4))}
    return schema(s, identifier(s, (f"{verb.lower()}_{noun()}", f"{noun()}_{verb.lower()}", verb.lower()), 0.3), about, arguments)


def like_kits(s: Source) -> list[Kit]:
    """Three tools of which only the descriptions tell which one a question is for."""
    kits: list[Kit] = []
    seen: set[str] = set()
    while len(kits) < 3:
        kit = attribute_kit(s) if s.chance(0.7) or kits == [] else s.pick((calculator_kit, search_kit, weather_kit))(s)
        keys = {kit.schema["function"]["name"], kit.about or kit.kind}
        if not keys & seen:
            kits.append(kit)
            seen |= keys
    return kits


def unlike_kits(s: Source) -> list[Kit]:
    """Two to five tools of different kinds, most of them under names that say nothing."""
    kits: list[Kit] = []
    names: set[str] = set()
    for maker in s.rng.sample((calculator_kit, search_kit, weather_kit, attribute_kit, binary_kit, terminal_kit, read_kit, write_kit, python_kit), s.rng.randint(2, 5)):
        kit = maker(s, renamed=s.pick((0.3, 1.0, 1.6, 1.6)))
        arithmetic = {other.kind for other in kits} & {"calculator", "binary", "python"}
        if kit.schema["function"]["name"] not in names and not (arithmetic and kit.kind in {"calculator", "binary", "python"}):
            kits.append(kit)
            names.add(kit.schema["function"]["name"])
    return kits


def _distinct(kit: Kit, main: Kit) -> bool:
    return bool(kit.schema["function"]["description"] != main.schema["function"]["description"] and _operator(kit) != _operator(main))


def _operator(kit: Kit) -> str:
    about = kit.schema["function"]["description"]
    return next((op for op, (_, texts) in BINARY.items() if about in texts), "")


def _unique(kits: list[Kit]) -> list[Kit]:
    seen: set[str] = set()
    kept = []
    for kit in kits:
        keys = {kit.schema["function"]["name"], _operator(kit) or kit.kind}
        if not keys & seen:
            kept.append(kit)
        seen |= keys
    return kept


# --------------------------------------------------------------------------------------------------------------------------------------
# Python code
# --------------------------------------------------------------------------------------------------------------------------------------


@dataclass
class Task:
    """A question, the program that answers it and what the program prints."""

    question: str
    code: str
    output: str
    kind: str = "code"
    done: str = ""


def _listing(s: Source, low: int = 3, high: int = 7) -> list[int]:
    xs = [s.integer(s.rng.randint(1, 3)) for _ in range(s.rng.randint(low, high))]
    if s.chance(0.15):
        xs[s.rng.randrange(len(xs))] = int(s.like(str(s.pick(xs)))) % 1000
    return xs


def _small(s: Source, low: int = 2, high: int = 60) -> int:
    return s.rng.randint(low, high)


def program(s: Source) -> Task:
    """A small programming or arithmetic question with its program."""
    for _ in range(1000):
        questions, code = s.pick(PROGRAMS)(s)
        question = s.pick(questions)
        if is_held_out(code) == (s.split == "test"):
            return Task(question, code, run_code(code))
    raise RuntimeError("no program found")


Pair = tuple[tuple[str, ...], str]


def _p_expression(s: Source) -> Pair:
    question, text = calculation(s)
    return (question,), printed(text)


def printed(text: str) -> str:
    """A program that prints an expression's value, rounded where it need not be whole."""
    return f"print(round({text}, 6))" if "/" in text.replace("//", "") or "." in text else f"print({text})"


def _p_sum(s: Source) -> Pair:
    n = _small(s, 3, 2000)
    return (
        f"What is the sum of the numbers from 1 to {n}?",
        f"Sum the integers from 1 to {n}.",
        f"Add up all numbers from 1 to {n}.",
        f"Compute 1 + 2 + ... + {n}.",
        f"What is the sum of the first {n} integers?",
        f"Calculate the sum of 1 to {n}",
        f"Find the sum of all integers from 1 to {n}.",
        f"求 1 到 {n} 的和。",
    ), f"print(sum(range(1, {n} + 1)))"


def _p_squares(s: Source) -> Pair:
    n = _small(s, 3, 300)
    return (f"What is the sum of the squares from 1 to {n}?", f"Sum the squares of the first {n} integers.", f"Compute the sum of squares up to {n}.", f"Add the squares of 1 to {n}."), f"print(sum(i ** 2 for i in range(1, {n} + 1)))"


def _p_square_list(s: Source) -> Pair:
    n = _small(s, 2, 9)
    return (f"List the squares of the numbers from 1 to {n}.", f"Give me the squares from 1 to {n} as a list.", f"Print the first {n} squares.", f"Use a list comprehension for the squares of 1 to {n}."), f"print([i ** 2 for i in range(1, {n} + 1)])"


def _p_factorial(s: Source) -> Pair:
    n = _small(s, 2, 17)
    return (f"What is the factorial of {n}?", f"Compute {n}!", f"Calculate the factorial of {n}.", f"What is {n} factorial?", f"Find {n}!.", f"计算 {n} 的阶乘。"), f"import math\nprint(math.factorial({n}))"


def _p_prime(s: Source) -> Pair:
    n = _small(s, 2, 999)
    return (f"Is {n} a prime number?", f"Is {n} prime?", f"Check whether {n} is prime.", f"Find out if {n} is a prime."), f"n = {n}\nprint(n > 1 and all(n % d for d in range(2, n)))"


def _p_primes(s: Source) -> Pair:
    n = _small(s, 5, 30)
    return (f"List the primes below {n}.", f"Which primes are smaller than {n}?", f"Find all prime numbers below {n}.", f"Print the prime numbers less than {n}."), f"print([n for n in range(2, {n}) if all(n % d for d in range(2, n))])"


def _p_count_primes(s: Source) -> Pair:
    n = _small(s, 10, 999)
    return (f"How many primes are below {n}?", f"Count the primes less than {n}.", f"How many prime numbers are smaller than {n}?"), f"print(sum(all(n % d for d in range(2, n)) for n in range(2, {n})))"


def _p_power(s: Source) -> Pair:
    n, k = _small(s, 2, 99), _small(s, 2, 6)
    return (f"What is {n} to the power of {k}?", f"Compute {n} to the power {k}.", f"Raise {n} to the power of {k}.", f"What is {n}^{k}?", f"Calculate {n}^{k}."), f"print({n} ** {k})"


def _p_square(s: Source) -> Pair:
    n = s.integer(s.rng.randint(1, 4))
    return (f"What is the square of {n}?", f"Square {n}.", f"Compute the square of {n}.", f"What is {n} squared?"), f"print({n} ** 2)"


def _p_cube(s: Source) -> Pair:
    n = s.integer(s.rng.randint(1, 3))
    return (f"What is the cube of {n}?", f"Compute the cube of {n}.", f"What is {n} cubed?"), f"print({n} ** 3)"


def _p_root(s: Source) -> Pair:
    n = _small(s, 1, 200)
    n = n * n if s.chance(0.6) else s.integer()
    return (f"What is the square root of {n}?", f"Compute the square root of {n}.", f"Find the square root of {n}.", f"Take the root of {n}."), f"import math\nprint(round(math.sqrt({n}), 6))"


def _quoted(s: Source) -> str:
    word = s.word()
    return word.replace('"', "")


def _p_reverse(s: Source) -> Pair:
    w = _quoted(s)
    return (f"Reverse the string {w}.", f"Reverse the word {w}.", f'Reverse "{w}".', f"What is {w} spelled backwards?", f"Write {w} backwards.", f"Print the reverse of {w}.", f"Reverse the string '{w}'"), f'print("{w}"[::-1])'


def _p_letters(s: Source) -> Pair:
    w = _quoted(s)
    c = s.pick(w.lower()) if s.chance(0.8) else s.pick("aeiourst")
    return (f'How many times does the letter {c} occur in {w}?', f"Count the letter {c} in {w}.", f'How many {c} are in the word {w}?', f'How often is {c} in "{w}"?', f"Count how many {c}'s are in {w}."), f'print("{w}".count("{c}"))'


def _p_length(s: Source) -> Pair:
    w = _quoted(s)
    return (f"How long is the word {w}?", f"How many letters has {w}?", f'What is the length of "{w}"?', f"Count the letters in {w}.", f"How many characters are in {w}?"), f'print(len("{w}"))'


def _p_upper(s: Source) -> Pair:
    w = _quoted(s)
    return (f"Write {w} in upper case.", f"Convert {w} to upper case.", f'Make "{w}" uppercase.', f"Uppercase the word {w}."), f'print("{w}".upper())'


def _p_palindrome(s: Source) -> Pair:
    w = _quoted(s).lower()
    w = w[:3] + w[:3][::-1] if s.chance(0.4) else w
    return (f"Is {w} a palindrome?", f'Check whether "{w}" is a palindrome.', f"Is the word {w} a palindrome?"), f'w = "{w}"\nprint(w == w[::-1])'


def _p_vowels(s: Source) -> Pair:
    w = _quoted(s)
    return (f"How many vowels are in {w}?", f"Count the vowels in {w}.", f'Count the vowels of "{w}".'), f'print(sum(c in "aeiou" for c in "{w}".lower()))'


def _list_text(s: Source, xs: list[int]) -> str:
    return str(s.pick((", ".join(map(str, xs)), ", ".join(map(str, xs)), str(xs), " ".join(map(str, xs)), ", ".join(map(str, xs[:-1])) + f" and {xs[-1]}")))


def _p_list(s: Source) -> Pair:
    xs = _listing(s)
    t = _list_text(s, xs)
    questions, code = s.pick(
        (
            ((f"Sort {t}.", f"Sort the list {t}.", f"Sort these numbers: {t}", f"Put {t} in order.", f"Sort the numbers {t} in ascending order."), "print(sorted({xs}))"),
            ((f"Sort {t} in descending order.", f"Sort {t} from largest to smallest."), "print(sorted({xs}, reverse=True))"),
            ((f"What is the largest of {t}?", f"Find the maximum of {t}.", f"What is the maximum of {t}?", f"Which number is the biggest: {t}"), "print(max({xs}))"),
            ((f"What is the smallest of {t}?", f"Find the minimum of {t}.", f"What is the minimum of {t}?"), "print(min({xs}))"),
            ((f"What is the mean of {t}?", f"What is the average of {t}?", f"Compute the mean of {t}.", f"Average these numbers: {t}"), "xs = {xs}\nprint(round(sum(xs) / len(xs), 4))"),
            ((f"What is the sum of {t}?", f"Add up {t}.", f"Sum the list {t}.", f"Sum these numbers: {t}"), "print(sum({xs}))"),
            ((f"What is the product of {t}?", f"Multiply all of {t}."), "import math\nprint(math.prod({xs}))"),
            ((f"What is the median of {t}?", f"Find the median of {t}."), "import statistics\nprint(statistics.median({xs}))"),
            ((f"Reverse the list {t}.", f"Reverse {t}."), "print({xs}[::-1])"),
            ((f"Which of {t} are even?", f"Keep the even numbers of {t}.", f"Filter the even numbers from {t}."), "print([x for x in {xs} if x % 2 == 0])"),
            ((f"Double every number in {t}.", f"Multiply each of {t} by 2."), "print([x * 2 for x in {xs}])"),
        )
    )
    return questions, code.replace("{xs}", str(xs))


def _p_fibonacci(s: Source) -> Pair:
    n = _small(s, 2, 40)
    if s.chance(0.5):
        n = min(n, 12)
        return (f"List the first {n} Fibonacci numbers.", f"Print the first {n} Fibonacci numbers.", f"Give me {n} Fibonacci numbers."), f"a, b = 0, 1\nxs = []\nfor _ in range({n}):\n    xs.append(a)\n    a, b = b, a + b\nprint(xs)"
    return (f"What is Fibonacci number {n}?", f"Compute the Fibonacci number {n}.", f"What is the {n}th Fibonacci number?", f"Calculate fib({n})."), f"a, b = 0, 1\nfor _ in range({n}):\n    a, b = b, a + b\nprint(a)"


def _p_gcd(s: Source) -> Pair:
    a, b = s.integer(s.rng.randint(1, 4)) + 1, s.integer(s.rng.randint(1, 4)) + 1
    if s.chance(0.3):
        return (f"What is the least common multiple of {a} and {b}?", f"Find the lcm of {a} and {b}.", f"Compute lcm({a}, {b})."), f"import math\nprint(math.lcm({a}, {b}))"
    return (f"What is the greatest common divisor of {a} and {b}?", f"Find the gcd of {a} and {b}.", f"Compute gcd({a}, {b}).", f"What is the gcd of {a} and {b}?"), f"import math\nprint(math.gcd({a}, {b}))"


def _p_multiples(s: Source) -> Pair:
    k, n = _small(s, 2, 12), _small(s, 20, 60)
    if s.chance(0.3):
        n = _small(s, 5, 20)
        return (f"List the even numbers up to {n}.", f"Print all even numbers from 2 to {n}."), f"print(list(range(2, {n} + 1, 2)))"
    if s.chance(0.4):
        n = _small(s, 20, 999)
        return (f"How many multiples of {k} are below {n}?", f"Count the numbers below {n} that are divisible by {k}."), f"print(sum(n % {k} == 0 for n in range(1, {n})))"
    n = k * _small(s, 2, 8)
    return (f"List the multiples of {k} up to {n}.", f"Which numbers up to {n} are divisible by {k}?"), f"print(list(range({k}, {n} + 1, {k})))"


def _p_digits(s: Source) -> Pair:
    n = s.integer(s.rng.randint(2, 6))
    return s.pick(
        (
            ((f"What is the sum of the digits of {n}?", f"Add the digits of {n}.", f"Compute the digit sum of {n}."), f"print(sum(int(d) for d in str({n})))"),
            ((f"Reverse the number {n}.", f"Reverse the digits of {n}."), f"print(int(str({n})[::-1]))"),
            ((f"How many digits has {n}?", f"Count the digits of {n}."), f"print(len(str({n})))"),
            ((f"Write {n} in binary.", f"Convert {n} to binary.", f"What is {n} in binary?"), f"print(bin({n})[2:])"),
            ((f"Convert {n} to hexadecimal.", f"What is {n} in hexadecimal?"), f"print(hex({n})[2:])"),
            ((f"Find the divisors of {n % 100 + 2}.", f"List the factors of {n % 100 + 2}."), f"print([d for d in range(1, {n % 100 + 2} + 1) if {n % 100 + 2} % d == 0])"),
        )
    )


def _p_story(s: Source) -> Pair:
    name, item = (s.name(), s.pick(words.ITEMS))
    other = s.name()
    a, b, c = _small(s, 5, 99), _small(s, 2, 40), _small(s, 2, 12)
    return s.pick(
        (
            ((f"{name} has {a} {item} and buys {b} more. How many {item} does {name} have?", f"{name} has {a} {item}. {other} gives {name} {b} more. How many {item} has {name} now?", f"There are {a} {item} in a box and {b} in a bag. How many {item} are there?", f"{name} found {a} {item} on Monday and {b} on Tuesday. How many {item} did {name} find?"), f"print({a} + {b})"),
            ((f"{name} has {a + b} {item} and gives {b} to {other}. How many {item} are left?", f"{name} had {a + b} {item} and lost {b}. How many are left?", f"There were {a + b} {item}. {name} took {b}. How many {item} remain?", f"{name} bought {a + b} {item} and ate {b} of them. How many {item} does {name} have left?"), f"print({a + b} - {b})"),
            ((f"{name} has {b} boxes with {c} {item} each. How many {item} are there?", f"One box holds {c} {item}. How many {item} are in {b} boxes?", f"{name} buys {b} bags of {c} {item}. How many {item} is that?"), f"print({b} * {c})"),
            ((f"{name} shares {b * c} {item} among {c} friends. How many does each get?", f"{b * c} {item} are split equally among {c} children. How many {item} does each child get?"), f"print({b * c} // {c})"),
            ((f"{name} has {a} {item}, buys {b} more and gives away {c}. How many {item} are left?", f"{name} had {a} {item}. {other} gave {name} {b} and {name} lost {c}. How many are left?"), f"print({a} + {b} - {c})"),
            ((f"{name} buys {b} {item} for {c} dollars each and pays with {b * c + a} dollars. What is the change?",), f"print({b * c + a} - {b} * {c})"),
            ((f"One of the {item} costs {c} dollars. How much do {b} {item} cost?", f"{name} buys {b} {item} at {c} dollars each. How much does {name} pay?"), f"print({b} * {c})"),
            ((f"A train drives {a} km per hour for {c} hours. How far does it go?", f"{name} walks {a} steps a minute for {c} minutes. How many steps is that?"), f"print({a} * {c})"),
            ((f"A car needs {c} hours for {a * c} km. What is its average speed?",), f"print({a * c} / {c})"),
            ((f"{name} is {a} years old. How old will {name} be in {b} years?", f"{name} is {a}. In {b} years, how old is {name}?"), f"print({a} + {b})"),
            ((f"{name} is thinking of a multiple of {a}, while {other} is thinking of a factor of {a}. If {name} and {other} are thinking of the same number, what is the sum of all possible numbers that they could be thinking of?",), f"print(sum(n for n in range(1, {a} + 1) if n % {a} == 0 and {a} % n == 0))"),
            ((f"{name} reads {b} pages a day. How many days does {name} need for {b * c} pages?",), f"print({b * c} / {b})"),
        )
    )


def _p_formula(s: Source) -> Pair:
    a, b, c = _small(s, 2, 99), _small(s, 2, 99), _small(s, 2, 20)
    return s.pick(
        (
            ((f"What is the area of a rectangle with sides {a} and {b}?", f"A rectangle is {a} by {b}. What is its area?"), f"print({a} * {b})"),
            ((f"What is the perimeter of a rectangle with sides {a} and {b}?",), f"print(2 * ({a} + {b}))"),
            ((f"What is the area of a circle with radius {a}?", f"Compute the area of a circle of radius {a}."), f"import math\nprint(round(math.pi * {a} ** 2, 4))"),
            ((f"What is {a} percent of {b}?", f"What is {a}% of {b}?", f"Compute {a}% of {b}."), f"print({a} * {b} / 100)"),
            ((f"Convert {a} degrees Celsius to Fahrenheit.", f"What is {a} Celsius in Fahrenheit?"), f"print(round({a} * 9 / 5 + 32, 2))"),
            ((f"Convert {a} degrees Fahrenheit to Celsius.", f"What is {a} Fahrenheit in Celsius?"), f"print(round(({a} - 32) * 5 / 9, 2))"),
            ((f"What is the remainder of {a * c} divided by {b}?", f"What is {a * c} modulo {b}?", f"What is {a * c} mod {b}?"), f"print({a * c} % {b})"),
            ((f"What is the hypotenuse of a right triangle with legs {a} and {b}?",), f"import math\nprint(round(math.hypot({a}, {b}), 4))"),
            ((f"Solve {c}x + {a} = {b}.", f"Find x if {c}x + {a} = {b}.", f"Solve for x: {c}x + {a} = {b}"), f"from fractions import Fraction\nprint(Fraction({b} - {a}, {c}))"),
            ((f"Solve {c}x - {a} = {b}.", f"Find x if {c}x - {a} = {b}."), f"from fractions import Fraction\nprint(Fraction({b} + {a}, {c}))"),
            ((f"What is the volume of a cube with side {a}?",), f"print({a} ** 3)"),
            ((f"How many minutes are {a} hours?",), f"print({a} * 60)"),
            ((f"How many seconds are in {a} minutes?",), f"print({a} * 60)"),
        )
    )


def _vector(s: Source, n: int) -> list[int]:
    return [s.rng.choice((-1, 1)) * s.rng.randint(0, 9) or 1 for _ in range(n)]


def _tex(xs: list[int]) -> str:
    return "\\begin{pmatrix} " + " \\\\ ".join(map(str, xs)) + " \\end{pmatrix}"


def _p_projection(s: Source) -> Pair:
    b, d = _vector(s, s.pick((2, 2, 3))), s.rng.randint(-9, 12)
    t = _tex(b)
    return (
        f"Find the projection of $\\mathbf{{a}}$ onto $\\mathbf{{b}} = {t}$ if $\\mathbf{{a}} \\cdot \\mathbf{{b}} = {d}.$",
        f"Find the projection of a onto b = {t} if a · b = {d}.",
        f"If $\\mathbf{{a}} \\cdot \\mathbf{{b}} = {d}$ and $\\mathbf{{b}} = {t}$, find the projection of $\\mathbf{{a}}$ onto $\\mathbf{{b}}$.",
    ), f"from fractions import Fraction\nb = {b}\nk = Fraction({d}, sum(x * x for x in b))\nprint([str(k * x) for x in b])"


def _p_dot(s: Source) -> Pair:
    n = s.pick((2, 3))
    a, b = _vector(s, n), _vector(s, n)
    return (f"What is the dot product of {a} and {b}?", f"Compute the dot product of {a} and {b}.", f"Find $\\mathbf{{a}} \\cdot \\mathbf{{b}}$ for $\\mathbf{{a}} = {_tex(a)}$ and $\\mathbf{{b}} = {_tex(b)}$."), f"print(sum(x * y for x, y in zip({a}, {b})))"


PROGRAMS: tuple[Callable[[Source], Pair], ...] = (
    _p_expression, _p_expression, _p_expression, _p_expression, _p_sum, _p_sum, _p_squares, _p_square_list, _p_factorial, _p_factorial, _p_prime, _p_primes,
    _p_count_primes, _p_power, _p_square, _p_cube, _p_root, _p_reverse, _p_reverse, _p_letters, _p_letters, _p_length, _p_upper, _p_palindrome, _p_vowels,
    _p_list, _p_list, _p_list, _p_list, _p_list, _p_fibonacci, _p_gcd, _p_multiples, _p_digits, _p_digits, _p_story, _p_story, _p_story, _p_story, _p_formula,
    _p_formula, _p_formula, _p_projection, _p_projection, _p_dot,
)  # fmt: skip


def plot(s: Source) -> Task:
    """A request for a picture with the program that draws it."""
    kind = s.rng.random()
    save = f"{s.word().lower().replace(' ', '_')}.png" if s.chance(0.35) else ""
    tail = s.pick((f" Save it as {save}.", f" Save the figure to {save}.", f" Write it to {save}")) if save else ""
    if kind < 0.4:
        xs = _listing(s, 3, 8)
        t = _list_text(s, xs)
        question = s.pick((f"Plot {t}.", f"Plot the numbers {t}.", f"Draw a line chart of {t}.", f"Draw a line graph of {t}.", f"Make a plot of {t}.", f"Draw a plot of the values {t}.", f"Visualize {t}.", f"Show {t} as a graph."))
        body = f"plt.plot({xs})"
    elif kind < 0.7:
        names = [s.word().replace('"', "") if s.chance(0.5) else str(s.pick(words.ITEMS)) for _ in range(s.rng.randint(2, 4))]
        values = [_small(s, 1, 99) for _ in names]
        t = ", ".join(f"{n} {v}" for n, v in zip(names, values, strict=True))
        if s.chance(0.3):
            t = ", ".join(f"{n}: {v}" for n, v in zip(names, values, strict=True))
        question = s.pick((f"Draw a bar chart of {t}.", f"Make a bar chart: {t}", f"Bar chart for {t}.", f"Plot a bar chart with {t}.", f"Show {t} as bars."))
        body = "plt.bar({}, {})".format("[" + ", ".join(f'"{n}"' for n in names) + "]", values)
    elif kind < 0.85:
        start = s.rng.randint(1950, 2020)
        values = [_small(s, 1, 99) if s.chance(0.6) else round(s.rng.uniform(1, 30), 1) for _ in range(s.rng.randint(3, 6))]
        years = list(range(start, start + len(values)))
        t = ", ".join(f"{n}: {v}" for n, v in zip(years, values, strict=True))
        topic = s.topic()
        question = s.pick((f"Draw a line graph of {t}.", f"Plot {t}.", f"The data for {topic}: {t}", f"Draw a line chart of {topic}: {t}", f"Plot {topic} by year: {t}.", f"I found this: {t}", f"I found this: {t}"))
        body = f"plt.plot({years}, {values})"
    else:
        f, low = s.pick(("x ** 2", "x ** 3", "2 * x", "3 * x + 1", f"{_small(s, 2, 9)} * x", f"x + {_small(s, 2, 9)}", f"{_small(s, 2, 9)} * x ** 2")), s.pick((0, 0, -5, -10, 1))
        high = _small(s, 5, 60)
        shown = s.pick((f, f.replace(" ** ", "**"), f.replace(" ** ", "^")))
        question = s.pick((f"Plot y = {shown} from {low} to {high}.", f"Draw the function {shown} for x from {low} to {high}.", f"Plot {shown} between {low} and {high}.", f"Draw a graph of f(x) = {shown} from {low} to {high}."))
        body = f"xs = range({low}, {high} + 1)\nplt.plot(xs, [{f} for x in xs])"
    code = f"import matplotlib.pyplot as plt\n{body}\n" + (f'plt.savefig("{save}")' if save else "plt.show()")
    output = s.pick(("", "Done", "<Figure size 640x480 with 1 Axes>", "[image/png]", "None", f"[image]({s.word()}.png)", "The code was executed.", "Figure(640x480)", "ok", "[matplotlib figure]"))
    return Task(question + tail, code, str(output), "plot", f"The plot is saved as {save}." if save else "The plot is done.")


CODE_SYSTEMS = """Solve the problem step by step with assistance of Python code
Solve the problem step by step with assistance of Python code
Solve the problem step by step with the assistance of Python code.
逐步分析并编写 python 代码解决以下问题。
逐步分析并编写 python 代码解决以下问题。
Solve the problem with Python.
Solve the problem with Python
Solve the task with Python code.
You are a coder. Write Python code to answer.
You are a coder who solves problems with Python.
Write Python code to solve the problem.
Use Python to answer the question.
You are a Python expert. Answer with a code block.
Answer with Python code in a ```python block.
You can run Python code. Write it in a ```python block and wait for its output.
You have a Python interpreter. Write code to solve the task.
You are an assistant with a Python interpreter.
Please write Python code for every question.
You are a programmer. Solve each task by writing code.
Write a program for the task, read its output, then answer.
You are a math assistant who writes Python.
Integrate step-by-step reasoning and Python code to solve math problems.
Think step by step and use Python code.
Use code to solve this.
Below is a math problem. Please solve it step by step with the assistance of Python code.
You are a data analyst. Use Python and matplotlib.
请编写 Python 代码解决问题。
You are a helpful coding assistant. Use Python.
Any charts you display will be visible by the user. Write Python code.
Solve math problems by writing and running Python.""".split("\n")
INTROS = ("I will compute this with Python.", "Let me compute this with Python.", "Here is the code.")
WRAPS = ("{o}", "{o}", "{o}", "{o}", "{o}", "Output:\n{o}", "Execution result: {o}", "The execution result is:\n{o}", "```\n{o}\n```", "stdout: {o}", "Result: {o}", "The following is the output: {o}", "[stdout]\n{o}", "Observation: {o}")
FENCES = ("\n```\n", "\n```\n", "\n```\n", "\n```", "")


def code_turn(s: Source, role: str, fence: str, prefix: str = "", kind: str = "", wrap: str = "{o}") -> list[Message]:
    task = plot(s) if kind == "plot" or (not kind and s.chance(0.18)) else program(s)
    output = task.output
    if task.kind != "plot" and s.split == "train" and s.chance(0.25):
        output = s.pick((random_number(s), random_number(s), s.word(), str(_listing(s)), s.pick(("True", "False"))))
    shown = wrap.format(o=output)
    answer = task.done or f"The answer is {output}."
    if s.split == "train" and s.chance(0.03):
        error = s.pick((f"NameError: name '{s.pseudo()}' is not defined", "ZeroDivisionError: division by zero", f"ValueError: {s.word()}", f"TypeError: {s.word()}", f"ModuleNotFoundError: No module named '{s.pseudo()}'"))
        shown = f"Traceback (most recent call last):\n  File \"<stdin>\", line 1, in <module>\n{error}" if s.chance(0.7) else error
        answer = f"The code failed: {error}"
    intro = "I will draw the plot." if task.kind == "plot" else INTROS[0]
    return [
        {"role": "user", "content": noisy(s, task.question) if s.chance(0.7) else task.question},
        {"role": "assistant", "content": f"{intro}\n```python\n{task.code}{fence}", "open": fence != "\n```\n"},
        {"role": role, "content": shown},
        {"role": "assistant", "content": prefix + answer},
    ]


def code_dialog(s: Source, kind: str = "", turns: int = 0) -> Dialog:
    """Questions under a system prompt that asks for Python code."""
    messages: list[Message] = [{"role": "system", "content": s.pick(CODE_SYSTEMS)}]
    prefix = ""
    if s.chance(0.12):
        prefix = s.pick(("Final Answer", "Final Answer", "Final Answer", "FINAL ANSWER", "Finished", "DONE"))
        messages = [{"role": "system", "content": team_prompt(s, prefix, s.pick(("IPythonInterpreter", "IPythonInteractive", "PythonInterpreter", "python")), "```python\n{code}\n```\n", s.pick(("Any charts you display will be visible by the user.", "Write correct code.", s.pick(CODE_SYSTEMS))))}]
        prefix += ": "
    elif s.chance(0.1):
        messages.insert(0, {"role": "system", "content": s.pick(SYSTEMS)})
    elif s.chance(0.1):
        messages[0]["content"] = f"{s.pick(SYSTEMS)} {messages[0]['content']}"
    role = s.pick(("environment", "tool", "user", "environment"))
    fence, wrap = s.pick(FENCES), s.pick(WRAPS)
    for _ in range(turns or s.rng.choices((1, 2, 3, 4), (35, 33, 22, 10))[0]):
        if s.chance(0.06):
            messages += chat_turn(s)
        else:
            messages += code_turn(s, role, fence, prefix, kind, wrap)
    return Dialog(kind or "code", messages)


def team_prompt(s: Source, finish: str, tools: str, form: str, extra: str) -> str:
    """The system prompt of one agent in a team, as visualisation tutorials write it."""
    return (
        "You are a helpful AI assistant, collaborating with other assistants. Use the provided tools to progress towards answering the question. "
        "If you are unable to fully answer, that's OK, another assistant with different tools will help where you left off. Execute what you can to "
        "make progress. If you or any of the other assistants have the final answer or deliverable, prefix your response with "
        f"{finish} so the team knows to stop. You have access to the following tools:\n{tools}\nPlease provide your thought process when you need to "
        f"use a tool, followed by the call statement in this format:\n{form}\\\\n**{extra}**"
    )


def json_dialog(s: Source) -> Dialog:
    """Calls written as a ```json block, with the tools described in the system prompt."""
    kits = [s.pick((search_kit, search_kit, attribute_kit, weather_kit, calculator_kit))(s)]
    if s.chance(0.4):
        other = s.pick((search_kit, attribute_kit, calculator_kit))(s)
        if other.kind != kits[0].kind:
            kits.append(other)
    listed = []
    for kit in kits:
        function = kit.schema["function"]
        parameters = [{"name": n, **p} for n, p in function["parameters"]["properties"].items()]
        listed.append({"name": function["name"], "description": function["description"], "parameters": parameters, "required": function["parameters"]["required"]})
    described = s.pick((json.dumps(listed, ensure_ascii=False), json.dumps(listed, ensure_ascii=False, indent=4 if s.chance(0.3) else None), "\n".join(json.dumps(t, ensure_ascii=False) for t in listed)))
    form = '```json\n{"name": {{tool name}}, "parameters": {{keyword arguments}}}\n```\n'
    finish = s.pick(("Final Answer", "Final Answer", "FINAL ANSWER"))
    if s.chance(0.65):
        system = team_prompt(s, finish, described, form, s.pick(("You should provide accurate data for the chart generator to use.", "Be precise.", s.pick(SYSTEMS))))
    else:
        system = f"{s.pick(SYSTEMS)} You have these tools:\n{described}\nCall a tool like this:\n{form}" + (f" Prefix the last answer with {finish}." if s.chance(0.5) else "")
    messages: list[Message] = [{"role": "system", "content": system}]
    role, fence = s.pick(("environment", "tool", "user")), s.pick(("\n```\n", "\n```\n", "\n```\n", "\n```", "", "```"))
    for _ in range(s.rng.choices((1, 2, 3), (55, 30, 15))[0]):
        kit = s.pick(kits)
        use = kit.argument(s)
        question = noisy(s, use.question)
        result = use.random_result(s) if s.chance(0.25) else use.result
        answer = use.answer(result)
        if kit.kind == "search" and s.chance(0.4):
            topic = s.topic()
            use.arguments = {next(iter(use.arguments)): topic}
            question = s.pick((f"Fetch {topic}, then draw a line graph of it. Once you code it up, finish.", f"Find {topic} and draw a bar chart.", f"Get {topic}, then plot it.", f"Fetch the {topic} over the past {s.rng.randint(2, 9)} years, then draw a line graph of it."))
            if "over the past" in question:
                use.arguments = {next(iter(use.arguments)): question[len("Fetch the ") :].split(", then")[0]}
            years = range(s.rng.randint(1990, 2020), 2025)
            result = ", ".join(f"{y}: {round(s.rng.uniform(1, 99), 1)}" for y in list(years)[: s.rng.randint(2, 6)])
            answer = f"I found this: {result}"
        said = "I will use a tool." if s.chance(0.999) else ""
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": f"{said}\n```json\n" + json.dumps({"name": use.name, "parameters": use.arguments}, ensure_ascii=False) + fence, "open": fence != "\n```\n"},
            {"role": role, "content": result},
            {"role": "assistant", "content": answer},
        ]
    return Dialog("json", messages)


FUNCTIONS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("returns the sum of {a} and {b}", "adds {a} and {b}"), "{a}, {b}", "return {a} + {b}"),
    (("returns the difference of {a} and {b}", "subtracts {b} from {a}"), "{a}, {b}", "return {a} - {b}"),
    (("returns the product of {a} and {b}", "multiplies {a} by {b}"), "{a}, {b}", "return {a} * {b}"),
    (("returns the larger of {a} and {b}", "returns the maximum of {a} and {b}"), "{a}, {b}", "return max({a}, {b})"),
    (("returns the smaller of {a} and {b}", "returns the minimum of {a} and {b}"), "{a}, {b}", "return min({a}, {b})"),
    (("returns {a} plus {n}", "adds {n} to {a}"), "{a}", "return {a} + {n}"),
    (("returns {a} times {n}", "multiplies {a} by {n}"), "{a}", "return {a} * {n}"),
    (("returns twice {a}", "doubles {a}"), "{a}", "return 2 * {a}"),
    (("returns the square of {a}", "squares {a}"), "{a}", "return {a} ** 2"),
    (("returns the absolute value of {a}",), "{a}", "return abs({a})"),
    (("returns whether {a} is even", "checks whether {a} is even"), "{a}", "return {a} % 2 == 0"),
    (("returns whether {a} is odd", "checks whether {a} is odd"), "{a}", "return {a} % 2 == 1"),
    (("returns the string {a} reversed", "reverses the string {a}", "reverses the list {a}"), "{a}", "return {a}[::-1]"),
    (("returns {a} in upper case", "converts {a} to upper case"), "{a}", "return {a}.upper()"),
    (("returns {a} in lower case", "converts {a} to lower case"), "{a}", "return {a}.lower()"),
    (("returns the length of {a}", "counts the characters of {a}"), "{a}", "return len({a})"),
    (("returns the list {a} sorted", "sorts the list {a}"), "{a}", "return sorted({a})"),
    (("returns the largest number of the list {a}",), "{a}", "return max({a})"),
    (("returns the sum of the list {a}", "adds up the list {a}"), "{a}", "return sum({a})"),
    (("returns the mean of the list {a}", "averages the list {a}"), "{a}", "return sum({a}) / len({a})"),
    (("returns whether {a} is a palindrome", "checks whether {a} is a palindrome"), "{a}", "return {a} == {a}[::-1]"),
    (("returns the even numbers of the list {a}", "keeps the even numbers of the list {a}"), "{a}", "return [x for x in {a} if x % 2 == 0]"),
    (("counts the vowels of {a}", "returns the number of vowels in {a}"), "{a}", 'return sum(c in "aeiou" for c in {a}.lower())'),
    (("returns the factorial of {a}", "computes the factorial of {a}"), "{a}", "return 1 if {a} < 2 else {a} * {f}({a} - 1)"),
    (("returns the sum of the digits of {a}", "adds the digits of {a}"), "{a}", "return sum(int(d) for d in str({a}))"),
    (("returns whether {a} is divisible by {b}", "checks whether {a} is divisible by {b}"), "{a}, {b}", "return {a} % {b} == 0"),
    (("counts how often {b} occurs in {a}", "returns how many times {b} is in {a}"), "{a}, {b}", "return {a}.count({b})"),
)


def function_task(s: Source) -> tuple[str, str, str]:
    """A Python function that is asked for: its name, what it does, its text."""
    wanted, arguments, body = s.pick(FUNCTIONS)
    plain = lambda: "".join(c for c in s.pseudo() if c.isascii() and c.isalpha()).lower() or "value"  # noqa: E731
    name = s.pick(("f", "solve", "compute", "run", "task", "solution", f"{plain()}_{plain()}", plain(), plain(), str(s.pick(words.NOUNS))))
    first, second = s.pick((("a", "b"), ("x", "y"), ("n", "k"), ("text", "part"), ("xs", "n"), ("values", "item"), ("s", "t"), (plain(), plain() + "2")))
    if name in {"return", "import", "from", "for", "in", "is", "if", "max", "min", "abs", "len", "sorted", "sum", "int", "str", first, second}:
        name = "solve"
    fields = {"a": first, "b": second, "n": s.rng.randint(2, 99), "f": name}
    signature = f"{name}({arguments.format(**fields)})"
    return signature, s.pick(wanted).format(**fields), f"def {signature}:\n    {body.format(**fields)}\n"


FUNCTION_ASK = ("Write a function {f} that {w}.", "Write a Python function {f} that {w}.", "Define {f}, which {w}.", "Implement {f}: it {w}.", "I need a function {f} that {w}.", "Write {f}. It {w}.")


def function_dialog(s: Source) -> Dialog:
    """Functions to write, into a file by a tool or as a block."""
    if s.chance(0.3):
        messages: list[Message] = [{"role": "system", "content": s.pick(CODE_SYSTEMS)}]
        for _ in range(s.rng.randint(1, 2)):
            signature, wanted, code = function_task(s)
            messages += exchange(s.pick(FUNCTION_ASK).format(f=signature, w=wanted), f"Here is the function.\n```python\n{code}```")
        return Dialog("functions", messages)
    kits = [write_kit(s)] if s.chance(0.4) else [write_kit(s), terminal_kit(s)]
    tools = [kit.schema for kit in kits]
    path_name, text_name = kits[0].schema["function"]["parameters"]["properties"]
    messages = system_prompt(s)
    for _ in range(s.rng.randint(1, 2)):
        signature, wanted, code = function_task(s)
        path = s.pick(("solution.py", "solution.py", "main.py", f"{signature.split('(')[0]}.py", file_name(s).rsplit(".", 1)[0] + ".py"))
        ask = s.pick(FUNCTION_ASK).format(f=signature, w=wanted)
        question = s.pick((f"{ask} Save it in {path}.", f"{ask} Write it to {path}.", f"In {path}: {ask[0].lower()}{ask[1:]}", f"{ask} Put it into the file {path}."))
        result = s.pick(("ok", "Done.", f"Wrote {len(code)} bytes", "File written.", f"Wrote {path}"))
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "", "tool_calls": [call(kits[0].schema["function"]["name"], {path_name: path, text_name: code})]},
            {"role": "tool", "content": in_json(s, result) if s.chance(0.3) else result},
            {"role": "assistant", "content": f"Done, {path} is written."},
        ]
    return Dialog("functions", messages, tools)


THINK_SYSTEMS = (
    "You are a deep thinking AI. Put your thoughts inside <think> </think> tags, then give your answer.",
    "You may think before you answer. Enclose your thoughts in <think> </think> tags.",
    "First think inside <think></think> tags, then call tools or answer.",
    "Think step by step inside <think>...</think>, then act.",
)
AGENT_SYSTEM = (
    "You are a helpful assistant.\n\nYou may think first, between <think> and </think>: what stands there is never run. Results of tools come back "
    "between <tool_response> and </tool_response>. When you are done, answer without a tool call."
)
TOOL_SYSTEMS = (
    "You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags. You may call one or more functions to assist with the user query.",
    "You can use the tools inside <tools></tools>. Use them when they help.",
    "You have access to the following tools:",
    "You are an agent with tools. Their signatures are within <tools> tags.",
    "Here are the available tools:",
    "You may call one or more functions. They are listed in the <tools> block.",
)
TOOLS_BLOCK = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n"
    "<tools>\n{t}\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{{"name": <function-name>, "arguments": <args-json-object>}}\n</tool_call>'
)
TOOL_FORMS = (
    'For each function call return a JSON object with the function name and arguments within <tool_call></tool_call> tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-dict>}\n</tool_call>',
    'To call a tool, write:\n<tool_call>\n{"name": "tool_name", "arguments": {"argument": "value"}}\n</tool_call>\nResults come back within <tool_response></tool_response> tags.',
    "Call a tool with a JSON object inside <tool_call></tool_call> tags: its name and its arguments. Results come in <tool_response> tags. When you are done, answer without a call.",
    'Write each call as <tool_call>{"name": ..., "arguments": {...}}</tool_call> and wait for its <tool_response>.',
)


def hermes_dialog(s: Source) -> Dialog:
    """Calls written as text, the tools inside the system prompt, results in the user's messages, often after a thought."""
    kits = [s.pick((calculator_kit, calculator_kit, search_kit, attribute_kit, weather_kit, terminal_kit, read_kit, write_kit, python_kit))(s)]
    while len(kits) < 3 and s.chance(0.4):
        other = s.pick((calculator_kit, search_kit, attribute_kit, weather_kit, terminal_kit, read_kit, write_kit))(s)
        if other.kind not in {kit.kind for kit in kits} and other.schema["function"]["name"] not in {kit.schema["function"]["name"] for kit in kits}:
            kits.append(other)
    s.rng.shuffle(kits)
    schemas = [kit.schema if s.chance(0.5) else kit.schema["function"] for kit in kits]
    listed = json.dumps(schemas, ensure_ascii=False) if s.chance(0.5) else "\n".join(json.dumps(tool, ensure_ascii=False) for tool in schemas)
    thinks = s.chance(0.5)
    parts = [s.pick(THINK_SYSTEMS)] if thinks else [s.pick(SYSTEMS)] if s.chance(0.3) else []
    parts += [s.pick(TOOL_SYSTEMS) + s.pick(("\n", " ")) + f"<tools>\n{listed}\n</tools>", s.pick(TOOL_FORMS)]
    if s.chance(0.25):
        parts.append(s.pick(SYSTEMS))
    system = s.pick(("\n\n", "\n\n", "\n")).join(parts)
    if s.chance(0.35):  # as `AtroposAgent` writes it, which allows thoughts and asks for none
        thinks = False
        head = AGENT_SYSTEM if s.chance(0.7) else str(s.pick(SYSTEMS))
        if s.chance(0.2):
            head += f"\n\nThe working directory of your tools is /{s.pick(words.NOUNS)}"
        listed = "\n".join(json.dumps(kit.schema, ensure_ascii=False) for kit in kits)
        system = head + TOOLS_BLOCK.format(t=listed)
    messages: list[Message] = [{"role": "system", "content": system}]
    room = s.pick(("\n", "\n", ""))
    for _ in range(s.rng.choices((1, 2, 3), (60, 28, 12))[0]):
        kit = s.pick(kits)
        use = kit.argument(s)
        error = s.chance(0.04)
        result = use.random_result(s) if s.split == "train" and s.chance(0.2) else use.result
        answer = use.answer(result)
        if error:
            result = s.pick(ERRORS).format(w=s.word(), d=s.rng.randint(2, 90))
            answer = f"Sorry, the tool failed. {result}"
        shown = in_json(s, result, error) if s.chance(0.75) else result
        wanted = json.dumps({"name": use.name, "arguments": use.arguments}, ensure_ascii=False)
        thought = f"<think>\nI need the {use.name} tool.\n</think>\n" if thinks else ""
        done = "<think>\nThe tool has answered.\n</think>\n" if thinks else ""
        messages += [
            {"role": "user", "content": noisy(s, use.question)},
            {"role": "assistant", "content": f"{thought}<tool_call>\n{wanted}\n</tool_call>"},
            {"role": "user", "content": f"<tool_response>{room}{shown}{room}</tool_response>"},
            {"role": "assistant", "content": done + answer},
        ]
    return Dialog("hermes", messages)


# --------------------------------------------------------------------------------------------------------------------------------------
# Writer, critic, reviser
# --------------------------------------------------------------------------------------------------------------------------------------

WRITER_SYSTEMS = (
    "You are an writing assistant tasked to write engaging blogpost. You try to generate the best possible for the user's request.If the user provides critique, then respond with a revised version of your previous attempts",
    "You are an writing assistant tasked to write engaging blogpost. You try to generate the best possible for the user's request. If the user provides critique, then respond with a revised version of your previous attempts",
    "You are a writing assistant. Write engaging blog posts and revise them when the user gives critique.",
    "You are a writer.",
    "You are a blogger who writes engaging posts.",
    "You write short texts. When you get critique, revise your text.",
    "You are an essay assistant tasked with writing excellent essays. If the user provides critique, respond with a revised version.",
    "You are a creative writer.",
)
CRITIC_SYSTEMS = (
    "Generate critique and recommendations on the writing. Provide detailed recommendations, including requests for length, depth, style, etc...",
    "Generate critique and recommendations on the writing. Provide detailed recommendations, including requests for length, depth, style, etc...",
    "You are a critic. Review the text and say how to improve it.",
    "You are a teacher grading a text. Generate critique and recommendations for the user's submission.",
    "Review the writing and give recommendations.",
    "You are an editor. Give critique on the writing.",
    "Critique the text you are given.",
)
WRITE_ASK = """Write an enagaging blogpost on the recent updates in {t}. The blogpost should be engaging and understandable for general audience. Should have more than 3 paragraphes but no longer than 1000 words.
Write an enagaging blogpost on the recent updates in {t}. The blogpost should be engaging and understandable for general audience. Should have more than 3 paragraphes but no longer than 1000 words.
Write an engaging blogpost on the recent updates in {t}.
Write a blog post about {t}.
Write a blogpost on {t}.
Write about {t}.
Write a short text about {t}.
Write a post on {t}
Write an article about {t}.
Write a short essay on {t}.
Please write a blog post about {t}.
Can you write something about {t}?
I need a blog post about {t}.
Compose a short article on {t}.
Write a few paragraphs about {t}.
Draft a post about {t}.
Write an introduction to {t}.
Blog about {t}.
写一篇关于 {t} 的文章。
Write a news post about the latest in {t}.
Write an essay about {t} for a general audience.
Give me a text about {t}.
Topic: {t}. Write a blog post.
Write a story about {t}.
Create a blog post on {t}, please.""".split("\n")
REFLECT = (
    "Reflect and provide critique on the following writing. \n\n",
    "Reflect and provide critique on the following writing. \n\n",
    "Reflect and provide critique on the following writing.\n\n",
    "Please review this text:\n\n",
    "Give critique on the following text.\n\n",
    "",
    "Critique this:\n",
    "What do you think of this text?\n\n",
    "How can this be improved?\n\n",
    "Review: ",
)
OPENING = (
    "Something new is happening in {t}.",
    "There is a lot of news about {t} this year.",
    "Have you heard what is new in {t}?",
    "A few years ago, few people talked about {t}.",
    "Everyone seems to talk about {t} these days.",
    "The world of {t} never stands still.",
    "Let us take a fresh look at {t}.",
    "If you follow {t}, this was an exciting year.",
)
BODY = (
    "New ideas make {t} simpler to use and easier to understand.",
    "Small teams and large companies now share what they learn about {t}.",
    "The latest steps in {t} save time and open new doors.",
    "Experts say that {t} will change how we live and work.",
    "What was once only for experts is now open to all who like {t}.",
    "The tools behind {t} have become better and cheaper.",
    "Many people try {t} for the first time and are surprised.",
)
DEPTH = (
    "Of course, open questions remain, and good work takes time.",
    "Not every promise will come true, but the direction is clear.",
    "There are risks as well, so it is wise to look closely.",
    "The best part is that anyone can join and learn.",
    "It is not only about technology, it is about people.",
)
CLOSING = (
    "One thing is sure: {t} will stay exciting.",
    "Keep an eye on {t}, the best is still to come.",
    "We look forward to the next news about {t}.",
    "In short, there has never been a better time for {t}.",
    "So give {t} a try and see for yourself.",
)
POINTS = (
    ("Add a concrete example", "For example, a small team used {t} and saved half of its time."),
    ("Ask the reader a question", "What would you do with {t}?"),
    ("Explain the main idea in plain words", "In plain words, {t} helps people to do more with less."),
    ("Give more numbers", "In one survey, seven out of ten people had tried {t}."),
    ("Name a risk or a limit", "Still, {t} has limits and needs care."),
    ("Make the ending stronger", "The time to start with {t} is now."),
    ("Add a personal note", "I tried {t} myself and learned a lot."),
    ("Say more about the history", "The story of {t} began many years ago."),
)
GENERAL_CRITIQUE = ("Make it shorter.", "Make it better.", "It is too long.", "I do not like it.", "Please improve it.", "Rewrite it.", "More depth, please.", "Use a better style.", "This is boring.", "Could you revise that?", "Try again with more energy.")


def _key(topic: str) -> int:
    return ord(topic[0])


def draft(s: Source, topic: str) -> list[str]:
    """The paragraphs of a first version; which sentences follow the topic's first letter mostly."""
    k = _key(topic) if s.chance(0.8) or s.split == "test" else s.rng.randint(0, 999)
    texts = (OPENING[k % len(OPENING)], BODY[k % len(BODY)], DEPTH[k % len(DEPTH)], CLOSING[k % len(CLOSING)])
    return [text.format(t=topic) for text in texts]


def critique(points: list[int], topic: str = "") -> str:
    about = f"The text on {topic} is clear" if topic else "The text is clear"
    return f"{about}, but it can be better.\n" + "\n".join(f"{i + 1}. {POINTS[p][0]}." for i, p in enumerate(points))


def revise(paragraphs: list[str], points: list[int], topic: str) -> list[str]:
    """The former version with one sentence for every point, under a new first line."""
    lead = f"Here is the revised post on {topic}."
    body = paragraphs[1:] if paragraphs[0].startswith("Here is the revised") else paragraphs
    return [lead, *body[:-1], *(POINTS[p][1].format(t=topic) for p in points), body[-1]]


def next_points(points: list[int]) -> list[int]:
    return [(points[-1] + 1) % len(POINTS), (points[-1] + 2) % len(POINTS)]


def text_of(paragraphs: list[str]) -> str:
    return "\n\n".join(paragraphs)


def first_points(s: Source, topic: str) -> list[int]:
    first = _key(topic) % len(POINTS) if s.chance(0.8) or s.split == "test" else s.rng.randint(0, len(POINTS) - 1)
    return [first, (first + 1) % len(POINTS)]


def writer_dialog(s: Source) -> Dialog:
    """The writer's side: a draft, then a revision after each critique."""
    topic = s.topic()
    messages: list[Message] = []
    if s.chance(0.75):
        messages.append({"role": "system", "content": s.pick(WRITER_SYSTEMS)})
    elif s.chance(0.7):
        messages += system_prompt(s)
    paragraphs, points = draft(s, topic), first_points(s, topic)
    ask = s.pick(WRITE_ASK).format(t=topic)
    messages += exchange(noisy(s, ask) if s.chance(0.3) else ask, text_of(paragraphs))
    for _ in range(s.rng.choices((0, 1, 2), (15, 50, 35) if s.stage >= 2 else (35, 40, 25))[0]):
        if s.chance(0.12):
            said: str = s.pick(GENERAL_CRITIQUE)
            points = first_points(s, topic) if not any(p in points for p in first_points(s, topic)) else next_points(points)
            points = points[:1]
            paragraphs = revise(paragraphs, _general(paragraphs), topic)
        elif s.chance(0.15):
            p = s.rng.randint(0, len(POINTS) - 1)
            said = s.pick(("{p}, please.", "Please {q}.", "{p}.", "Can you {q}?", "I would like you to {q}.")).format(p=POINTS[p][0], q=POINTS[p][0][0].lower() + POINTS[p][0][1:])
            points = [p]
            paragraphs = revise(paragraphs, points, topic)
        else:
            said = critique(points, topic if s.chance(0.8) else "")
            paragraphs = revise(paragraphs, points, topic)
            points = next_points(points)
            messages += exchange(said, text_of(paragraphs))
            continue
        points = next_points(points)
        messages += exchange(said, text_of(paragraphs))
    return Dialog("writer", messages)


def _general(paragraphs: list[str]) -> list[int]:
    """The point to take up when the critique names none: by the length of the text so far."""
    return [len(paragraphs) % len(POINTS)]


def critic_dialog(s: Source) -> Dialog:
    """The critic's side: one list of points a round."""
    topic = s.topic()
    messages: list[Message] = [{"role": "system", "content": s.pick(CRITIC_SYSTEMS)}]
    prefix = s.pick(REFLECT)
    if s.chance(0.2):
        text = s.topic() + " " + " ".join(fact(s, topic) for _ in range(s.rng.randint(1, 4)))
        return Dialog("critic", messages + exchange(prefix + text, critique([0, 1])))
    paragraphs, points = draft(s, topic), first_points(s, topic)
    if s.chance(0.25):
        paragraphs = revise(paragraphs, points, topic)
        points = next_points(points)
    messages += exchange(prefix + text_of(paragraphs), critique(points, topic))
    for _ in range(s.rng.choices((0, 1, 2), (45, 40, 15))[0]):
        paragraphs = revise(paragraphs, points, topic)
        points = next_points(points)
        messages += exchange(prefix + text_of(paragraphs), critique(points, topic))
    return Dialog("critic", messages)


# --------------------------------------------------------------------------------------------------------------------------------------
# Plain chat, memory, one-of-these, few-shot, small sums
# --------------------------------------------------------------------------------------------------------------------------------------

WHO = "I am TinyLM, a tiny model for demonstrations. I can call tools, write small programs and short texts."
CANNOT = "Sorry, I am a tiny model and cannot answer that. I can call tools, write small programs and short texts."
CHAT: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello", "Hi", "Hi!", "Hello!", "Hey", "Hey there", "Good morning", "Good evening!", "Hi there!", "hello", "hi", "Greetings", "Hello there.", "Good afternoon."), "Hello! How can I help you?"),
    (("你好", "您好", "你好！", "早上好"), "你好！我能帮你什么？"),
    (("How are you?", "How are you doing?", "How do you do?", "Are you well?", "How is it going?"), "I am fine, thank you. How can I help you?"),
    (("Who are you?", "What are you?", "Tell me about yourself.", "What is your name?", "Introduce yourself.", "What's your name?", "What model are you?", "Are you a robot?", "Are you human?", "Which model are you?", "Who is this?"), WHO),
    (("你是谁？", "你叫什么名字？"), "我是 TinyLM，一个用于演示的小模型。"),
    (("What can you do?", "Help", "How can you help me?", "What are you able to do?", "help", "What are your skills?"), "I can call tools, write small Python programs, write short texts and remember what you tell me."),
    (("Thanks", "Thank you", "Thank you!", "Thanks a lot.", "Thanks!", "Great, thanks.", "thx", "Many thanks.", "谢谢", "Perfect, thank you."), "You are welcome!"),
    (("Bye", "Goodbye", "Bye!", "See you.", "See you later", "Good night", "再见", "Bye bye", "Farewell."), "Goodbye!"),
    (("OK", "Okay.", "Good.", "Great!", "Nice.", "Very good.", "Cool", "Fine.", "Well done!", "I see."), "Is there anything else I can do?"),
    (("Who made you?", "Who created you?", "Who trained you?", "Where do you come from?"), "I was trained from scratch on a small synthetic corpus."),
    (("Tell me a joke.", "Say something funny.", "Do you know a joke?", "Make me laugh."), "Why did the tiny model cross the road? It was only four layers deep."),
    (("人生的意义是什么？", "生命的意义是什么？", "人为什么活着？"), "人生的意义在于自己去寻找。"),
    (("What is the meaning of life?", "Why are we here?", "What is the purpose of life?"), "The meaning of life is what you make of it."),
    (("Sorry", "I am sorry.", "My mistake."), "No problem."),
    (("Yes", "yes", "Yes, please."), "What would you like me to do?"),
    (("No", "No, thanks.", "no", "Nothing else."), "All right. I am here if you need me."),
)
UNKNOWN = """Why is the {w} so {v}?
Do you like {w}?
When does the {w} open?
Can you drive a {w}?
Where did I put my {w}?
How do I repair a {w}?
Translate {w} into French.
Sing a song.
What time is it?
What day is it today?
Order a {w} for me.
Call {n}.
Book a flight to {n}.
Who will win the {w} game?
Will {n} come today?
Is {n} taller than {w}?
Give me advice about my {w}.
How old is {n}?
Do you remember the {w}?
Should I buy a {w}?
Play some {w} music.
Wake me up at seven.
{w}
{w} {v}?""".split("\n")


def exchange(user: str, assistant: str) -> list[Message]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def chat_turn(s: Source) -> list[Message]:
    if s.chance(0.15):
        return exchange(s.pick(UNKNOWN).format(w=s.word(), v=s.pick(words.NOUNS), n=s.name()), CANNOT)
    questions, reply = s.pick(CHAT)
    return exchange(s.pick(questions), reply)


FACTS_ABOUT_ME = ("favourite color", "favorite color", "favourite number", "favorite food", "dog", "cat", "city", "secret word", "password", "code", "hobby", "job", "friend", "sister", "brother", "school", "team", "favourite animal", "age", "car")
TELL_NAME = ("My name is {n}.", "I am {n}.", "I'm {n}.", "Call me {n}.", "Hi, my name is {n}.", "Hello, I am {n}.", "my name is {n}", "Hi! I am {n}", "You can call me {n}.", "Hello! My name is {n}. Remember it.", "Please remember that my name is {n}.", "This is {n} speaking.", "The name is {n}.", "Remember: my name is {n}.", "Hi, I'm {n}", "My name is {n}, nice to meet you.", "我叫{n}。", "I am called {n}.", "My name is {n}. What a nice day!")
ASK_NAME = ("What is my name?", "What is my name?", "What's my name?", "Do you remember my name?", "Who am I?", "Tell me my name.", "Can you tell me my name?", "what is my name", "Say my name.", "What did I say my name is?", "How am I called?", "Do you know my name?", "我叫什么名字？", "Which name did I tell you?", "Remind me: what is my name?", "What was my name again?")
TELL_FACT = ("My {k} is {v}.", "my {k} is {v}", "Remember that my {k} is {v}.", "Please note: my {k} is {v}.", "Remember: my {k} is {v}", "By the way, my {k} is {v}.", "I want you to remember that my {k} is {v}.", "Keep in mind that my {k} is {v}.", "My {k} is called {v}.")
ASK_FACT = ("What is my {k}?", "What is my {k}?", "What's my {k}?", "Do you remember my {k}?", "Tell me my {k}.", "Which {k} did I tell you?", "What was my {k}?", "Do you know my {k}?", "what is my {k}")


def memory_turn(s: Source, known: dict[str, str]) -> list[Message]:
    """One thing told, asked for, or other talk; `known` is what was told so far."""
    kind = s.rng.random()
    if kind < 0.22:
        known["name"] = s.name() if s.chance(0.85) else f"{s.name()} {s.name()}"
        return exchange(s.pick(TELL_NAME).format(n=known["name"]), f"Nice to meet you, {known['name']}.")
    if kind < 0.4:
        key = s.pick(FACTS_ABOUT_ME) if s.chance(0.8) else s.pick(words.NOUNS)
        known[key] = s.pick((s.word(), s.word(), s.name(), str(s.integer())))
        return exchange(s.pick(TELL_FACT).format(k=key, v=known[key]), f"I will remember that your {key} is {known[key]}.")
    if kind < 0.68:
        name = known.get("name")
        return exchange(s.pick(ASK_NAME), f"Your name is {name}." if name else "You have not told me your name.")
    if kind < 0.86:
        key = s.pick(list(known)) if known and s.chance(0.8) else s.pick(FACTS_ABOUT_ME)
        if key == "name":
            return exchange(s.pick(ASK_NAME), f"Your name is {known['name']}.")
        return exchange(s.pick(ASK_FACT).format(k=key), f"Your {key} is {known[key]}." if key in known else f"You have not told me your {key}.")
    return chat_turn(s)


def memory_dialog(s: Source) -> Dialog:
    """What the user said earlier, asked for later, with other talk in between."""
    messages = system_prompt(s)
    known: dict[str, str] = {}
    for _ in range(s.rng.randint(2, 7)):
        messages += memory_turn(s, known)
    return Dialog("memory", messages)


def chat_dialog(s: Source) -> Dialog:
    messages = system_prompt(s)
    if s.chance(0.06):
        messages = [{"role": "system", "content": "你是一个哲学家。"}]
    for _ in range(s.rng.randint(1, 5)):
        messages += chat_turn(s)
    return Dialog("chat", messages)


def choice_dialog(s: Source) -> Dialog:
    """A system prompt that allows a few answers only; the first of them is always right."""
    chinese = s.chance(0.4)
    if chinese:
        options = ["".join(s.rng.sample(words.CHINESE, s.pick((1, 1, 2)))) for _ in range(s.rng.randint(2, 4))]
        if s.chance(0.3):
            options = s.rng.sample(["典", "孝", "急", "乐", "绷", "赢", "是", "否", "好", "坏"], s.rng.randint(2, 4))
        listed = "，".join(f"“{o}”" for o in options)
        count = "零一两三四"[len(options)]
        system = s.pick((f"你的回答只能从{listed}{count}个字中选一个。", f"你的回答只能从{listed}中选一个。", f"只能回答{listed}之一。", f"请从{listed}中选择一个回答。"))
        ask = s.pick(("今天的天气情况怎么样", "你好吗", "今天怎么样？", "你觉得呢？", "这个电影好看吗？", "明天会下雨吗", "你喜欢音乐吗？", "他是谁？"))
    else:
        options = [s.pick((s.word(), str(s.pick(words.NOUNS)), s.name())) for _ in range(s.rng.randint(2, 5))]
        if s.chance(0.3):
            options = list(s.pick((("yes", "no"), ("positive", "negative", "neutral"), ("true", "false"), ("good", "bad"), ("red", "green", "blue"), ("A", "B", "C", "D"))))
        listed = ", ".join(options)
        joined = ", ".join(options[:-1]) + " or " + options[-1]
        system = s.pick((f"Answer only with one of: {listed}.", f"Answer only with {joined}.", f"Choose one of these: {listed}.", f"Your answer must be one of {listed}.", f"Reply with exactly one word: {joined}.", f"You may only answer {joined}.", f"Classify the message as one of: {listed}", f"Only answer with one of the following: {listed}."))
        ask = s.pick(("What is your favourite?", "How is the weather today?", "What do you think?", f"Is {s.word()} good?", f"{s.name()} likes {s.word()}.", "I love this movie!", "Which one?", "Pick one.", "Do you agree?", f"Tell me about {s.topic()}."))
    messages: list[Message] = [{"role": "system", "content": system}]
    for _ in range(s.rng.choices((1, 2), (80, 20))[0]):
        messages += exchange(ask, options[0])
    return Dialog("choice", messages)


def few_shot_dialog(s: Source) -> Dialog:
    """Examples show the form of the answer."""
    left, right = s.pick((("【", "】"), ("【", "】"), ("[", "]"), ("(", ")"), ("<", ">"), ("**", "**"), ("Answer: ", ""), ("=> ", ""), ('"', '"'), ("# ", ""), ("{", "}")))
    values = ["晴", "阴", "雨", "雪", "风", "云"] if s.chance(0.5) else [s.word() for _ in range(4)]
    days = ["今天天气", "昨天天气", "明天天气", "后天天气", "前天天气"] if s.chance(0.5) else [s.topic() for _ in range(5)]
    s.rng.shuffle(days)
    messages: list[Message] = system_prompt(s) if s.chance(0.3) else []
    value = s.pick(values)
    for i in range(s.rng.randint(1, 3)):
        messages += [{"role": "user", "content": days[i]}, {"role": "assistant", "content": f"{left}{value}{right}", "skip": True}]
        value = s.pick(values) if s.chance(0.5) else value
    last = messages[-1]["content"]
    messages += exchange(days[4], last)
    return Dialog("few_shot", messages)


def sums_dialog(s: Source) -> Dialog:
    """Arithmetic without any tool: the smallest sums by heart, the rest not."""
    messages = system_prompt(s)
    for _ in range(s.rng.randint(1, 3)):
        a, b = s.rng.randint(0, 9), s.rng.randint(0, 9)
        if s.chance(0.5):
            messages += exchange(s.pick(CALC_ASK[:30]).format(e=f"{a} + {b}"), f"The result of {a} + {b} is {a + b}.")
        else:
            question, text = calculation(s)
            if not _by_heart(text):
                messages += exchange(noisy(s, question), "I need a calculator tool for that.")
    if len(messages) == 0 or messages[-1]["role"] == "system":
        messages += chat_turn(s)
    return Dialog("sums", messages)


def _by_heart(text: str) -> bool:
    parts = text.split(" + ")
    return (len(parts) == 2 and all(part.isdigit() and len(part) == 1 for part in parts)) or len(text.replace(" ", "")) <= 3


REPEAT_ASK = ("Repeat: {x}", "Repeat: {x}", "Say: {x}", "Repeat after me: {x}", "Copy this: {x}", "Echo {x}", "Repeat exactly: {x}", "Say {x}")


def repeat_dialog(s: Source) -> Dialog:
    """Copying of text nobody has seen."""
    messages = system_prompt(s) if s.chance(0.3) else []
    for _ in range(s.rng.randint(1, 3)):
        text = scramble(s)
        messages += exchange(s.pick(REPEAT_ASK).format(x=text), text)
    return Dialog("repeat", messages)


def scramble(s: Source) -> str:
    kind = s.rng.random()
    if kind < 0.3:
        return s.topic()
    if kind < 0.55:
        return " ".join(s.word() for _ in range(s.rng.randint(1, 5)))
    if kind < 0.65:
        return s.expression()
    if kind < 0.72:
        return " ".join(random_number(s) for _ in range(s.rng.randint(1, 3)))
    if kind < 0.79:
        few = [s.pick((str(s.integer()), str(s.pick(words.NOUNS)), s.pseudo())) for _ in range(s.rng.randint(2, 3))]
        return s.pick((" ", ", ", " + ", "-", " and ")).join(s.pick(few) for _ in range(s.rng.randint(3, 8)))
    if kind < 0.85:
        return fact(s, s.topic())
    if kind < 0.95:
        return "".join(s.pick("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:#@") for _ in range(s.rng.randint(3, 14)))
    return "".join(s.rng.sample(words.CHINESE, s.rng.randint(2, 7)))


# --------------------------------------------------------------------------------------------------------------------------------------
# The mixture
# --------------------------------------------------------------------------------------------------------------------------------------

MAKERS: dict[str, tuple[float, Callable[[Source], Dialog]]] = {
    "tools": (0.27, tools_dialog),
    "code": (0.255, code_dialog),
    "plot": (0.04, lambda s: code_dialog(s, "plot")),
    "json": (0.035, json_dialog),
    "writer": (0.075, writer_dialog),
    "critic": (0.055, critic_dialog),
    "memory": (0.095, memory_dialog),
    "chat": (0.03, chat_dialog),
    "choice": (0.02, choice_dialog),
    "few_shot": (0.015, few_shot_dialog),
    "sums": (0.02, sums_dialog),
    "repeat": (0.11, repeat_dialog),
    "hermes": (0.05, hermes_dialog),
    "functions": (0.03, function_dialog),
}


LAST_WEIGHTS = {
    "tools": 0.42, "code": 0.22, "plot": 0.06, "json": 0.06, "writer": 0.06, "critic": 0.035, "memory": 0.04, "chat": 0.015, "choice": 0.01,
    "few_shot": 0.005, "sums": 0.015, "repeat": 0.06, "hermes": 0.06, "functions": 0.03,
}  # fmt: skip


def dialogs(seed: int, stage: int = 0) -> Iterator[Dialog]:
    """Training dialogs without end, the same ones for the same seed.

    Args:
        seed: Of the random numbers.
        stage: The part of training: 0 the full mixture, 1 closer to what people ask, 2 and 3 with more of what is learned last.

    >>> first = next(dialogs(0))
    >>> first.messages[-1]["role"]
    'assistant'
    """
    s = Source(random.Random(seed), stage=stage)
    makers = [maker for _, maker in MAKERS.values()]
    weights = list(LAST_WEIGHTS.values()) if stage >= 2 else [weight for weight, _ in MAKERS.values()]
    while True:
        dialog = s.rng.choices(makers, weights)[0](s)
        if not _leaks(dialog):
            yield dialog


def drill(seed: int) -> Iterator[Dialog]:
    """Short dialogs for the first minutes: a tool call without the long system block, and copying."""
    s = Source(random.Random(seed))
    while True:
        if s.chance(0.4):
            dialog = repeat_dialog(s)
        else:
            kit = s.pick(KITS)(s)
            dialog = Dialog("drill", [m for _ in range(s.rng.randint(1, 2)) for m in tool_turn(s, kit)], [])
            dialog.messages.insert(0, {"role": "system", "content": json.dumps(kit.schema["function"], ensure_ascii=False)})
        if not _leaks(dialog):
            yield dialog


_HELD_OUT = frozenset(words.HELD_OUT)


def _leaks(dialog: Dialog) -> bool:
    """Whether a held-out word slipped in (a made-up word can hit one by chance)."""
    text = " ".join(str(message["content"]) for message in dialog.messages).replace("helpful AI assistant", "helpful assistant")
    return not _HELD_OUT.isdisjoint(text.replace(".", " ").replace(",", " ").replace("?", " ").split())


