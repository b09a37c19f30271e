"""What the embedded model can do, on a small fixed sample of the held-out tasks its card reports."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lagentlike.llms.tiny.engine import SamplingParams, TinyEngine

TRAINING = Path(__file__).resolve().parents[2] / "models" / "tiny"
CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Evaluate an arithmetic expression.",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    },
}


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The evaluation script of the model, imported from where it lies."""
    monkeypatch.syspath_prepend(str(TRAINING))
    yield importlib.import_module("evaluate")
    for name in ("evaluate", "corpus", "words"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("task", "least"),
    [
        ("calculator, 48 phrasings, 1 and 2 digits", 0.95),
        ("calculator, 48 phrasings, 3 and 4 digits", 0.85),
        ("remembers a name", 0.8),
        ("does not know a name it was not told", 0.9),
        ("greetings and questions about itself", 0.9),
        ("critic", 0.8),
    ],
)
def test_whole_held_out_dialogs_come_out_right(evaluate: ModuleType, task: str, least: float) -> None:
    _, maker = evaluate.CASES[task]
    assert evaluate.success(TinyEngine.load(), maker, 20) >= least


def test_the_first_example_of_the_documentation_comes_out_word_for_word() -> None:
    engine = TinyEngine.load()
    messages = [{"role": "user", "content": "What is the result of 1 + 1?"}]
    call = engine.generate(engine.render(messages, [CALCULATOR]), SamplingParams(max_new_tokens=100)).text
    assert call == '<tool_call>\n{"name": "calculator", "arguments": {"expression": "1 + 1"}}\n</tool_call>'
    messages += [{"role": "assistant", "content": call}, {"role": "tool", "content": "2"}]
    assert engine.generate(engine.render(messages, [CALCULATOR])).text == "The result of 1 + 1 is 2."


def test_the_training_corpus_is_the_same_for_the_same_seed_and_keeps_held_out_words_out(evaluate: ModuleType) -> None:
    corpus, words = importlib.import_module("corpus"), importlib.import_module("words")
    first, second = corpus.dialogs(3), corpus.dialogs(3)
    for _ in range(300):
        dialog = next(first)
        assert json.dumps(dialog.messages) == json.dumps(next(second).messages)
        text = " ".join(str(message["content"]) for message in dialog.messages)
        text = text.replace("helpful AI assistant", "")  # how some system prompts begin
        assert not {word for word in words.HELD_OUT if f" {word} " in text}


def test_held_out_expressions_are_never_trained(evaluate: ModuleType) -> None:
    corpus, random = importlib.import_module("corpus"), importlib.import_module("random")
    source = corpus.Source(random.Random(1))
    assert not any(corpus.is_held_out(source.expression()) for _ in range(300))
