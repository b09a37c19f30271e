"""The line in front of a decoder: who waits, who joins, and who is never worked on."""

from __future__ import annotations

import os
import threading
import time

import pytest

from lagentlike.llms import scheduler
from lagentlike.llms.scheduler import Request, Scheduler
from lagentlike.llms.tiny.engine import GenerationStep, SamplingParams


class Counting:
    """A decoder of at most two requests at once, whose tokens are numbers from the prompt's first on."""

    def __init__(self) -> None:
        self.under_way: list[Request] = []
        self.most = 0
        self.read: list[int] = []
        self.gate = threading.Event()

    @property
    def room(self) -> int:
        return 2 - len(self.under_way)

    def join(self, requests: list[Request]) -> None:
        self.read += [request.prompt[0] for request in requests]
        self.under_way += requests
        self.most = max(self.most, len(self.under_way))

    def step(self) -> bool:
        self.gate.wait(10)
        going = []
        for request in self.under_way:
            number = len(request.steps)
            last = number + 1 == request.params.max_new_tokens
            if request.take(GenerationStep(request.prompt[0] + number, -1.0, "x", "length" if last else None)):
                going.append(request)
        self.under_way = going
        return bool(going)


def asked(first: int, tokens: int = 3) -> Request:
    return Request([first], SamplingParams(max_new_tokens=tokens))


def test_a_request_that_finds_no_room_joins_when_another_ends() -> None:
    decoder = Counting()
    decoder.gate.set()
    line = Scheduler(lambda: decoder, "lagentlike-counting")
    requests = [line.submit(asked(first, tokens)) for first, tokens in ((10, 2), (20, 9), (30, 4), (40, 1), (50, 3))]
    answers = [request.future.result(10).token_ids for request in requests]
    assert answers == [[request.prompt[0] + n for n in range(request.params.max_new_tokens)] for request in requests]
    assert decoder.most == 2
    assert decoder.read == [10, 20, 30, 40, 50]


def test_a_request_that_is_dropped_in_line_is_never_read() -> None:
    decoder = Counting()
    line = Scheduler(lambda: decoder, "lagentlike-counting")
    first, second, unwanted, last = (line.submit(asked(number)) for number in (1, 2, 3, 4))
    unwanted.drop()
    decoder.gate.set()
    assert [request.future.result(10).token_ids[0] for request in (first, second, last)] == [1, 2, 4]
    assert 3 not in decoder.read


def test_an_error_of_a_listener_ends_its_request_alone() -> None:
    decoder = Counting()
    decoder.gate.set()
    line = Scheduler(lambda: decoder, "lagentlike-counting")

    def deaf(step: GenerationStep) -> None:
        raise ConnectionError("gone")

    heard: list[int] = []
    broken, well = asked(1), asked(2)
    broken.on_step, well.on_step = deaf, lambda step: heard.append(step.token_id)
    for request in (broken, well):
        line.submit(request)
    with pytest.raises(ConnectionError, match="gone"):
        broken.future.result(10)
    assert well.future.result(10).token_ids == heard == [2, 3, 4]


def test_the_thread_ends_when_nobody_asks_and_another_begins_with_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler, "_IDLE_SECONDS", 0.05)
    made = []

    def make() -> Counting:
        made.append(Counting())
        made[-1].gate.set()
        return made[-1]

    line = Scheduler(make, "lagentlike-short")
    for number in (1, 2):
        assert line.submit(asked(number)).future.result(10).token_ids[0] == number
        deadline = time.monotonic() + 20
        while any(thread.name == "lagentlike-short" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert len(made) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_a_thread_of_its_own() -> None:
    def make() -> Counting:
        decoder = Counting()
        decoder.gate.set()
        return decoder

    line = Scheduler(make, "lagentlike-counting")
    line.submit(asked(1)).future.result(10)
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = line.submit(asked(7)).future.result(10).token_ids == [7, 8, 9]
        finally:
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
