"""What becomes of a request when the server, the network or the caller misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import gc
import gzip
import json
import logging
import math
import os
import random
import resource
import shutil
import ssl
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from lagentlike.errors import (
    AuthenticationFailed,
    BadResponse,
    ConnectFailed,
    InvalidArgument,
    LLMError,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    RequestTimeout,
    ResponseTooLarge,
    ServerError,
    StreamTruncated,
)
from lagentlike.llms import AsyncGPTAPI
from lagentlike.llms.transport import Request, Transport, TransportOptions

from .asking import ask, both_ways, HI, KEY, model, read_into
from .fault_server import (
    answer,
    Behaviour,
    chunk,
    close,
    completion,
    drip,
    events,
    FaultServer,
    hang,
    JSON_HEAD,
    raw,
    Received,
    refuse,
    reply,
    reset,
    STREAM_HEAD,
    stream_of,
)


class Clock:
    def __init__(self) -> None:
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


# Being told to wait


@both_ways
@pytest.mark.parametrize("headers", [{"Retry-After": "2"}, {"retry-after-ms": "2000"}], ids=str)
async def test_waits_as_long_as_the_server_asks(way: str, headers: dict[str, str]) -> None:
    async with FaultServer(refuse(429, headers=headers), answer()) as server:
        assert await ask(model(server), way) == "hello"
    assert len(server.requests) == 2
    assert 2.0 <= server.gaps[0] <= 2.5


async def test_waits_until_the_date_the_server_names() -> None:
    wanted = math.ceil(time.time()) + 2

    date = email.utils.formatdate(wanted, usegmt=True)
    async with FaultServer(refuse(429, headers={"Retry-After": date}), answer()) as server:
        assert await ask(model(server), "chat") == "hello"
    assert len(server.requests) == 2
    assert 0 <= time.time() - wanted <= 0.6


@both_ways
async def test_fails_at_once_when_asked_to_wait_too_long(way: str) -> None:
    clock = Clock()
    async with FaultServer(refuse(429, headers={"Retry-After": "3600"})) as server:
        with pytest.raises(RateLimited) as caught:
            await ask(model(server), way)
    assert caught.value.retry_after == 3600
    assert len(server.requests) == 1
    assert clock.seconds < 0.2


async def test_fails_at_once_when_the_wait_passes_the_deadline() -> None:
    clock = Clock()
    async with FaultServer(refuse(429, headers={"Retry-After": "5"})) as server:
        with pytest.raises(RateLimited):
            await ask(model(server, total=2), "chat")
    assert clock.seconds < 0.2


@both_ways
async def test_gives_up_when_always_rate_limited(way: str) -> None:
    async with FaultServer(refuse(429)) as server:
        with pytest.raises(RateLimited):
            await ask(model(server, retry=3), way)
    assert len(server.requests) == 4


async def test_retries_of_a_thousand_clients_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    drawn = Transport._pause

    def pause(self: Transport, *args: Any) -> float | None:
        seconds = drawn(self, *args)
        pauses.extend(() if seconds is None else [seconds])
        return seconds

    monkeypatch.setattr(Transport, "_pause", pause)
    async with FaultServer(refuse(429)) as server:
        llm = model(server, retry=1, backoff=3.0)
        results = await asyncio.gather(*(ask(llm, "chat") for _ in range(1000)), return_exceptions=True)
    assert {type(result) for result in results} == {RateLimited}
    assert len(server.requests) == 2000
    assert len(pauses) == 1000
    assert max(Counter(int(seconds * 10) for seconds in pauses).values()) <= 70  # 33 a tenth of a second if even


# Quotas and keys


@both_ways
async def test_exhausted_quota_is_not_retried(way: str) -> None:
    async with FaultServer(refuse(429, "You exceeded your current quota", code="insufficient_quota")) as server:
        with pytest.raises(QuotaExhausted):
            await ask(model(server), way)
    assert len(server.requests) == 1


@both_ways
async def test_exhausted_quota_moves_on_to_the_next_key(way: str) -> None:
    out_of_quota = refuse(429, code="insufficient_quota")

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        spent = request.headers["authorization"] in ("Bearer k1", "Bearer k2")
        await (out_of_quota if spent else answer())(writer, request)

    async with FaultServer(behave) as server:
        llm = model(server, key=["k1", "k2", "k3"])
        assert await ask(llm, way) == "hello"
        assert await ask(llm, way) == "hello"
    used = Counter(request.headers["authorization"] for request in server.requests)
    assert used == {"Bearer k1": 1, "Bearer k2": 1, "Bearer k3": 2}


# Errors of the server


@both_ways
@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
async def test_server_errors_are_retried_without_haste(way: str, status: int) -> None:
    body = b"<html>bad gateway</html>" if status == 502 else b'{"error": {"message": "overloaded"}}'
    async with FaultServer(reply(body, status)) as server:
        with pytest.raises(ServerError) as caught:
            await ask(model(server, retry=1, backoff=0.25), way)
    assert caught.value.status == status
    assert len(server.requests) == 2
    assert min(server.gaps) >= 0.25


async def test_pauses_are_never_shorter_than_a_quarter_second_by_default() -> None:
    async with FaultServer(refuse(503), refuse(500), answer()) as server:
        llm = AsyncGPTAPI("m", key=None, api_base=server.url)
        assert await ask(llm, "chat") == "hello"
    assert min(server.gaps) >= 0.25


@pytest.mark.parametrize("status", [408, 409])
async def test_statuses_that_may_pass_are_retried(status: int) -> None:
    async with FaultServer(refuse(status), answer()) as server:
        assert await ask(model(server), "chat") == "hello"


@both_ways
@pytest.mark.parametrize("status", [401, 403, 404, 413, 422])
async def test_refusals_are_not_retried_and_show_no_key(
    way: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    message = f"the key {KEY} is not welcome"
    async with FaultServer(refuse(status, message)) as server:
        llm = model(server)
        with pytest.raises(AuthenticationFailed if status in (401, 403) else RequestRefused) as caught:
            await ask(llm, way)
    error = caught.value
    assert error.status == status
    assert len(server.requests) == 1
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(llm) + repr(vars(llm)) + caplog.text
    assert KEY not in told
    assert "the key *** is not welcome" in str(error)
    assert error.__context__ is None


@pytest.mark.parametrize("called", ["application/json", "text/event-stream", "text/plain", "application/x-ndjson", ""])
async def test_a_stream_and_an_answer_that_is_none_are_told_apart_whatever_they_are_called(called: str) -> None:
    whole = reply(completion("whole"), headers={"Content-Type": called})
    spaced = reply(b"\r\n " + json.dumps(completion("spaced"), indent=1).encode(), headers={"Content-Type": called})
    stream = reply(stream_of("streamed"), headers={"Content-Type": called})
    async with FaultServer(whole, spaced, stream) as server:
        llm = model(server)
        assert [await ask(llm, "stream") for _ in server.behaviours] == ["whole", "spaced", "streamed"]


SSE = b"data: %s\n\n"


@both_ways
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": f"the key {KEY} is not welcome", "type": "server_error"}},
        {"error": f"the key {KEY} is not welcome"},
        {"error": {"message": "x" * 985 + KEY}},  # the message is cut within it
        {"nothing": KEY},
        f"no JSON {KEY}".encode(),
        b"x" * 1000 + KEY.encode(),  # what is kept is cut within it
    ],
)
async def test_errors_that_come_with_status_200_show_no_key(
    way: str, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with FaultServer(events(SSE % sent) if way == "stream" else reply(sent)) as server:
        with pytest.raises(LLMError) as caught:
            await ask(model(server, retry=1), way)
    error = caught.value
    told = "".join(traceback.format_exception(error)) + repr(error) + error.raw + caplog.text
    assert KEY[:12] not in told


async def test_an_error_within_a_stream_shows_no_key() -> None:
    said = {"error": {"message": f"the key {KEY} is not welcome", "type": "server_error"}}
    stream = [chunk({"content": "half"}), SSE % json.dumps(said).encode()]
    pieces: list[str] = []
    async with FaultServer(events(stream, pause=0.05)) as server:
        with pytest.raises(ServerError, match=r"the key \*\*\* is not welcome") as caught:
            await read_into(pieces, model(server))
    assert (pieces, caught.value.partial) == (["half"], "half")
    assert KEY not in caught.value.raw


@both_ways
async def test_redirects_are_not_followed(way: str) -> None:
    async with FaultServer(answer("stolen")) as other:
        for status in (301, 302, 307, 308):
            async with FaultServer(reply(b"", status, {"Location": other.url + "/chat/completions"})) as server:
                with pytest.raises(RequestRefused, match="redirects to http://127"):
                    await ask(model(server), way)
    assert len(server.requests) == 1
    assert other.requests == []


# No connection


async def test_refused_connections_are_tried_three_times(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lagentlike")
    async with FaultServer(answer()) as server:
        pass
    clock = Clock()
    with pytest.raises(ConnectFailed, match=f"no connection to 127.0.0.1:{server.port}"):
        await ask(model(server, retry=9), "chat")
    assert len(caplog.records) == 2
    assert clock.seconds < 2


async def test_retry_of_one_against_a_closed_port_ends() -> None:
    async with FaultServer(answer()) as server:
        pass
    with pytest.raises(ConnectFailed):
        await ask(model(server, retry=1), "stream")


async def test_unknown_host_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = AsyncGPTAPI("m", key=None, api_base="http://localhost:1/v1", transport=TransportOptions(backoff=0.01))

    async def no_such_name(*args: Any, **kwargs: Any) -> Any:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", no_such_name)
    with pytest.raises(ConnectFailed, match="no connection to localhost:1"):
        await ask(llm, "chat")


TLS_CLIENT = """
import asyncio, sys, logging
from lagentlike.llms import AsyncGPTAPI
from lagentlike.errors import ConnectFailed
logging.basicConfig(level=logging.INFO)
async def main():
    try:
        proxies = {"https": proxy for proxy in sys.argv[2:]}
        llm = AsyncGPTAPI("m", key=None, api_base=sys.argv[1], timeout=10, proxies=proxies)
        for _ in range(2):
            print(await llm.chat([{"role": "user", "content": "hi"}]))
    except ConnectFailed as error:
        print("ConnectFailed:", error)
asyncio.run(main())
"""


def certificate(directory: Path, name: str) -> ssl.SSLContext:
    """A server's context with a certificate of its own for a name, kept as cert.pem."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificates of this test")
    make = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=test -addext"
    subprocess.run([openssl, *make.split(), f"subjectAltName={name}"], cwd=directory, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return context


async def run_tls_client(trusted: Path | str, *arguments: str) -> tuple[str, str]:
    """What a program that trusts this certificate prints, and its log."""
    environment = {**os.environ, "SSL_CERT_FILE": str(trusted)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TLS_CLIENT, *arguments, env=environment, stdout=-1, stderr=-1
    )
    out, log = await process.communicate()
    return out.decode(), log.decode()


@pytest.mark.parametrize(
    ("name", "trusted", "told"),
    [
        ("IP:127.0.0.1", True, "hello"),
        ("IP:127.0.0.1", False, "ConnectFailed: no secure connection"),
        ("DNS:elsewhere.test", True, "ConnectFailed: no secure connection"),
    ],
    ids=["good", "unknown-issuer", "wrong-host"],
)
async def test_tls_failures_are_not_retried(tmp_path: Path, name: str, trusted: bool, told: str) -> None:
    async with FaultServer(answer(), tls=certificate(tmp_path, name)) as server:
        out, log = await run_tls_client(tmp_path / "cert.pem" if trusted else os.devnull, server.url)
    assert out.startswith(told)
    assert "attempt 2" not in log


async def test_secure_requests_pass_a_proxy_in_a_tunnel(tmp_path: Path) -> None:
    heads: list[str] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    async def pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    async with (
        FaultServer(answer(), tls=certificate(tmp_path, "DNS:model.test")) as server,
        await asyncio.start_server(tunnel, "127.0.0.1", 0) as proxy,
    ):
        port = proxy.sockets[0].getsockname()[1]
        urls = ["https://model.test/v1", f"http://u:p@127.0.0.1:{port}"]
        out, log = await run_tls_client(tmp_path / "cert.pem", *urls)
    assert (out, log) == ("hello\nhello\n", "")
    assert len(heads) == 1
    assert heads[0].startswith("CONNECT model.test:443 HTTP/1.1")
    assert "Proxy-Authorization: Basic dTpw" in heads[0]
    assert "proxy-authorization" not in server.requests[0].headers


# Connections that break


@both_ways
@pytest.mark.parametrize("broken", [reset, close], ids=["reset", "closed"])
async def test_connection_lost_before_the_answer_is_retried(way: str, broken: Behaviour) -> None:
    async with FaultServer(broken, broken, answer()) as server:
        assert await ask(model(server), way) == "hello"
    async with FaultServer(broken) as server:
        with pytest.raises(ConnectFailed):
            await ask(model(server), way)
    assert len(server.requests) == 3


@pytest.mark.parametrize("broken", [reset, close], ids=["reset", "short"])
async def test_answer_cut_off_is_retried(broken: Behaviour) -> None:
    cut = raw(JSON_HEAD % 500 + b'{"choices": [{"mess', broken)
    async with FaultServer(cut, cut, answer()) as server:
        assert await ask(model(server), "chat") == "hello"
    async with FaultServer(cut) as server:
        with pytest.raises(StreamTruncated):
            await ask(model(server), "chat")
    assert len(server.requests) == 3


async def test_stream_cut_before_its_first_text_is_retried() -> None:
    head = chunk({"role": "assistant", "content": ""})
    cut = raw(STREAM_HEAD + b"%x\r\n%b\r\n" % (len(head), head), reset)
    async with FaultServer(cut, answer()) as server:
        assert await ask(model(server), "stream") == "hello"
    assert len(server.requests) == 2


async def test_no_character_comes_twice_wherever_a_stream_is_cut() -> None:
    text = "".join(chr(0x4E00 + number) for number in range(120))
    whole = stream_of(text, size=4)
    random_ = random.Random(1)
    ends = Counter[str]()

    async def cut(writer: asyncio.StreamWriter, request: Received) -> None:
        place = random_.randrange(1, len(whole))
        await events(whole[:place], end=False)(writer, request)
        await random_.choice([reset, close, events_end])(writer, request)

    async def events_end(writer: asyncio.StreamWriter, request: Received) -> None:
        writer.write(b"0\r\n\r\n")

    async with FaultServer(cut) as server:
        llm = model(server, retry=0)
        for _ in range(1000):
            pieces: list[str] = []
            outcome = await asyncio.gather(read_into(pieces, llm), return_exceptions=True)
            ends[type(outcome[0]).__name__] += 1
            came = outcome[0].partial if isinstance(outcome[0], LLMError) else text
            assert came.startswith("".join(pieces))
            assert text.startswith(came)
    assert set(ends) <= {"StreamTruncated", "ConnectFailed", "BadResponse", "NoneType"}, ends
    assert ends["StreamTruncated"] > 800, ends


async def test_answer_that_was_complete_before_the_connection_broke_counts() -> None:
    whole = stream_of("hello", usage=False, done=False)

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        await events(whole, end=False)(writer, request)
        await asyncio.sleep(0.02)
        await reset(writer, request)

    async with FaultServer(behave) as server:
        reply_ = await ask(model(server), "stream")
    assert (reply_, reply_.finish_reason) == ("hello", "stop")


# Slowness


@both_ways
async def test_black_hole_ends_at_the_first_byte_deadline(way: str) -> None:
    clock = Clock()
    async with FaultServer(hang) as server:
        with pytest.raises(RequestTimeout, match="first_byte"):
            await ask(model(server, first_byte=0.3), way)
    assert 0.3 <= clock.seconds <= 1.3
    assert len(server.requests) == 1


@both_ways
async def test_headers_that_drip_end_at_the_first_byte_deadline(way: str) -> None:
    clock = Clock()
    async with FaultServer(drip(STREAM_HEAD, 0.1)) as server:
        with pytest.raises(RequestTimeout, match="first_byte"):
            await ask(model(server, first_byte=0.5, idle=0.3), way)
    assert clock.seconds <= 1.5


@both_ways
async def test_body_that_drips_ends_at_the_total_deadline(way: str) -> None:
    clock = Clock()
    slow = raw(STREAM_HEAD + b"ffff\r\n", drip(b": comment\n" * 100, 0.1))
    async with FaultServer(slow) as server:
        with pytest.raises(RequestTimeout, match="total"):
            await ask(model(server, total=0.6, idle=0.4), way)
    assert 0.6 <= clock.seconds <= 1.6


async def test_body_that_stops_ends_at_the_idle_deadline() -> None:
    clock = Clock()
    async with FaultServer(raw(JSON_HEAD % 500 + b'{"cho', hang)) as server:
        with pytest.raises(RequestTimeout, match="idle"):
            await ask(model(server, idle=0.3), "chat")
    assert 0.3 <= clock.seconds <= 1.3


async def test_stalled_stream_ends_at_the_idle_deadline_and_keeps_what_came() -> None:
    part = b"".join(chunk({"content": piece}) for piece in ("half", " an"))
    pieces: list[str] = []
    async with FaultServer(raw(STREAM_HEAD + b"%x\r\n%b\r\n" % (len(part), part), hang)) as server:
        clock = Clock()
        with pytest.raises(RequestTimeout, match="idle") as caught:
            await read_into(pieces, model(server, idle=0.3))
    assert 0.3 <= clock.seconds <= 1.3
    assert caught.value.partial == "".join(pieces) == "half an"


def test_idle_deadline_is_a_minute_by_default() -> None:
    assert TransportOptions().idle == 60


async def test_connecting_has_its_own_deadline() -> None:
    async def never_greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        while not reader.at_eof():
            await reader.read()
        writer.close()

    async with await asyncio.start_server(never_greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        options = TransportOptions(connect=0.2, max_retries=0)
        clock = Clock()
        with pytest.raises(ConnectFailed, match=r"within 0.2 s"):
            await ask(AsyncGPTAPI("m", key=None, api_base=f"https://127.0.0.1:{port}", transport=options), "chat")
        assert clock.seconds <= 1.2
        await asyncio.sleep(0.05)


# Answers that cannot be read


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": [{"message": {"content": "a"}',
        b"<html><body>Welcome</body></html>",
        b"",
        b"[]",
        b"null",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": {"0": 1}}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": "a"}, "logprobs": NaN}]}',
        b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"choices": [{"message": {"content": "a"}}], "created": ' + b"9" * 1_000_000 + b"}",
        b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
    ],
    ids=lambda body: repr(body[:45]),
)
@both_ways
async def test_unreadable_answers_are_told_with_their_bytes(way: str, body: bytes) -> None:
    async with FaultServer(reply(body)) as server:
        with pytest.raises(BadResponse) as caught:
            await ask(model(server), way)
    assert len(server.requests) <= 2
    assert len(caught.value.raw) <= 1024
    assert caught.value.raw or not body


@pytest.mark.parametrize(
    "event",
    [b"{", b"[1]", b"\xff\xfe", b'{"a": NaN}', b"[" * 5000],
    ids=lambda event: repr(event[:20]),
)
async def test_unreadable_events_are_told_with_their_bytes(event: bytes) -> None:
    async with FaultServer(events(b"data: " + event + b"\n\n")) as server:
        with pytest.raises(BadResponse) as caught:
            await ask(model(server), "stream")
    assert caught.value.raw
    assert len(server.requests) <= 2


async def test_web_page_instead_of_a_stream_is_told() -> None:
    page = reply(b"<html><body>Welcome</body></html>", 200, {"Content-Type": "text/html"})
    async with FaultServer(page) as server:
        with pytest.raises(BadResponse) as caught:
            await ask(model(server), "stream")
    assert "Welcome" in caught.value.raw


@both_ways
async def test_what_is_no_http_is_told(way: str) -> None:
    async with FaultServer(raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", close)) as server:
        with pytest.raises(BadResponse, match=r"does not answer in HTTP"):
            await ask(model(server), way)
    assert len(server.requests) <= 2


@pytest.mark.parametrize(
    ("whole", "error"),
    [
        (stream_of("hello")[:-14].rpartition(b'data: {"id": "c1", "object": "chat.completion.chunk", "model": "m", '
         b'"choices": [{"index": 0, "delta": {}')[0], StreamTruncated),
        (b"data: [DONE]\n\n", BadResponse),
        (b"", BadResponse),
        (b": keep-alive\n\n", BadResponse),
        (chunk({"role": "assistant"}) + b"data: [DONE]\n\n", StreamTruncated),
        (b'data: {"error": {"message": "overloaded", "code": 503}}\n\ndata: [DONE]\n\n', ServerError),
        (b'data: {"error": {"message": "slow down", "type": "rate_limit_error"}}\n\n', RateLimited),
        (b'data: {"error": {"message": "bad", "type": "invalid_request_error"}}\n\n', RequestRefused),
        (b'data: {"object": "error", "message": "boom", "code": 500}\n\n', ServerError),
        (b'event: error\ndata: {"message": "boom"}\n\n', ServerError),
        (chunk({"content": "a"}, finish="abort"), ServerError),
    ],
)  # fmt: skip
async def test_stream_without_an_answer_is_an_error(whole: bytes, error: type[LLMError]) -> None:
    async with FaultServer(events(whole)) as server:
        with pytest.raises(error):
            await ask(model(server, retry=0), "stream")


async def test_error_amid_a_stream_keeps_what_came() -> None:
    error = b'data: {"error": {"message": "out of memory"}}\n\n'
    pieces: list[str] = []
    async with FaultServer(events([chunk({"content": "half"}), error], pause=0.02)) as server:
        with pytest.raises(ServerError, match="out of memory") as caught:
            await read_into(pieces, model(server))
    assert caught.value.partial == "".join(pieces) == "half"
    assert len(server.requests) == 1


# Size


async def test_long_line_in_a_stream_is_fine() -> None:
    text = "x" * 2_000_000
    async with FaultServer(events([chunk({"content": text}), chunk(finish="stop")])) as server:
        assert await ask(model(server), "stream") == text


@both_ways
async def test_too_large_an_answer_is_refused_while_it_comes(way: str) -> None:
    block = b"x" * 2**20

    async def endless(writer: asyncio.StreamWriter, request: Received) -> None:
        writer.write(STREAM_HEAD)
        for _ in range(100):
            writer.write(b"%x\r\n%b\r\n" % (len(block), block))
            await writer.drain()

    async with FaultServer(endless) as server:
        llm = model(server, max_bytes=4 * 2**20)
        with pytest.raises(ResponseTooLarge, match="raise max_bytes"):
            await ask(llm, way)
    assert len(server.requests) == 1


@both_ways
async def test_gzip_bomb_is_refused_before_it_unfolds(way: str) -> None:
    bomb = gzip.compress(b"\0" * 2**28, 9)
    kind = "application/json" if way == "chat" else "text/event-stream"
    async with FaultServer(reply(bomb, 200, {"Content-Encoding": "gzip", "Content-Type": kind})) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ResponseTooLarge):
            await ask(model(server, max_bytes=8 * 2**20), way)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown <= 2 * 8 * 2**20


def test_cap_is_32_mib_by_default() -> None:
    assert TransportOptions().max_bytes == 32 * 2**20


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_compressed_answers_are_read(encoding: str) -> None:
    body = stream_of("hello")
    packed = gzip.compress(body) if encoding == "gzip" else body
    headers = {"Content-Encoding": encoding, "Content-Type": "text/event-stream"}
    async with FaultServer(reply(packed, 200, headers)) as server:
        assert await ask(model(server), "stream") == "hello"


@pytest.mark.parametrize(
    ("encoding", "body"), [("br", b"abc"), ("gzip", b"abc"), ("gzip", gzip.compress(b"{}", mtime=0)[:-9])]
)
async def test_damaged_or_unknown_compression_is_told(encoding: str, body: bytes) -> None:
    async with FaultServer(reply(body, 200, {"Content-Encoding": encoding})) as server:
        with pytest.raises(BadResponse):
            await ask(model(server, retry=0), "chat")


async def test_large_requests_are_sent_without_a_warning() -> None:
    async with FaultServer(answer()) as server:
        await model(server).chat([{"role": "user", "content": "x" * 3_000_000}])
    assert len(server.requests[0].json["messages"][0]["content"]) == 3_000_000


# Connections that are kept


async def test_a_thousand_requests_use_one_connection() -> None:
    async with FaultServer(answer()) as server:
        llm = model(server)
        for number in range(1000):
            await ask(llm, "stream" if number % 2 else "chat")
        assert (server.connections, len(server.requests)) == (1, 1000)


async def test_connections_are_shared_by_models_of_one_loop() -> None:
    async with FaultServer(answer()) as server:
        for _ in range(10):
            await ask(model(server), "chat")
        assert server.connections == 1


@pytest.mark.parametrize("broken", [close, reset], ids=["closed", "reset"])
async def test_connection_closed_while_idle_is_replaced_unnoticed(broken: Behaviour) -> None:
    good = answer()
    served = set[int]()

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        if request.connection in served:  # closes on the next request instead of answering it
            await broken(writer, request)
        else:
            served.add(request.connection)
            await good(writer, request)

    async with FaultServer(behave) as server:
        llm = model(server, retry=0)
        for number in range(1000):
            assert await ask(llm, "stream" if number % 2 else "chat") == "hello"
    assert server.connections == 1000


async def test_connection_closed_after_each_answer_is_replaced_unnoticed() -> None:
    good = answer()

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        await good(writer, request)
        await close(writer, request)

    async with FaultServer(behave) as server:
        llm = model(server, retry=0)
        answers = [await asyncio.gather(*(ask(llm, "chat") for _ in range(8))) for _ in range(25)]
    assert answers == [["hello"] * 8] * 25


async def test_connections_at_once_are_limited() -> None:
    most = 0

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        nonlocal most
        most = max(most, server.open)
        await asyncio.sleep(0.01)
        await answer()(writer, request)

    async with FaultServer(behave) as server:
        llm = model(server, max_connections=5)
        await asyncio.gather(*(ask(llm, "chat") for _ in range(30)))
    assert most == 5


async def test_nothing_stays_open_after_aclose(no_leaks: None) -> None:
    async with FaultServer(answer()) as server:
        llm = model(server)
        await ask(llm, "chat")
        await llm.aclose()
        await asyncio.sleep(0.01)
        assert server.open == 0
        assert await ask(llm, "chat") == "hello"


def test_connections_close_with_their_loop(no_leaks: None) -> None:
    async def main() -> None:
        async with FaultServer(answer()) as server:
            await ask(model(server), "chat")

    for _ in range(3):
        asyncio.run(main())


# Cancellation


async def test_a_thousand_cancelled_calls_leave_no_socket(no_leaks: None) -> None:
    slow = events([chunk({"content": "a"}), chunk({"content": "b"})] * 3, pause=0.02)
    random_ = random.Random(2)

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        await asyncio.sleep(0.005)
        await slow(writer, request)

    async def one(number: int) -> None:
        task = asyncio.create_task(ask(llm, "stream" if number % 2 else "chat"))
        await asyncio.sleep(random_.uniform(0, 0.05))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async with FaultServer(behave) as server:
        llm = model(server)
        for start in range(0, 1000, 50):
            await asyncio.gather(*(one(number) for number in range(start, start + 50)))
        await asyncio.sleep(0.1)
        assert server.open == 0


async def test_stream_left_early_closes_its_connection() -> None:
    async with FaultServer(events([chunk({"content": "a"})] * 50, pause=0.02)) as server:
        stream = model(server).stream_chat(HI)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            while server.open:
                await asyncio.sleep(0.01)


async def test_cancelled_call_does_not_spoil_the_next() -> None:
    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        text = request.json["messages"][0]["content"]
        await asyncio.sleep(0.02)
        await reply(completion(text))(writer, request)

    async with FaultServer(behave) as server:
        llm = model(server)
        for number in range(30):
            task = asyncio.create_task(llm.chat([{"role": "user", "content": f"old {number}"}]))
            await asyncio.sleep(0.001 * number)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert await llm.chat([{"role": "user", "content": f"new {number}"}]) == f"new {number}"


# Many faults at once


async def test_every_call_ends_typed_when_a_third_of_all_goes_wrong() -> None:
    random_ = random.Random(3)
    cut = raw(JSON_HEAD % 500 + b'{"choices"', reset)
    faults = [refuse(429), refuse(500), refuse(503), reset, close, cut, reply(b"{"), refuse(400)]
    good = answer()

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        await (random_.choice(faults) if random_.random() < 0.3 else good)(writer, request)

    results = await _many_calls(behave)
    assert results.pop("requests") <= 1.4 * 10_000
    good_ones = results.pop("hello")
    assert good_ones > 8_500
    assert good_ones + sum(results.values()) == 10_000


async def test_an_outage_is_not_made_worse_by_retries() -> None:
    results = await _many_calls(refuse(503))
    assert results.pop("requests") <= 1.2 * 10_000
    assert results == {"ServerError": 10_000}


async def _many_calls(behave: Behaviour) -> Counter[str]:
    """How 10,000 calls ended, 256 at once: answers by text, errors by class, and the requests made."""
    ends = Counter[str]()
    async with FaultServer(behave) as server:
        llm = model(server, backoff=0.01)
        numbers = iter(range(10_000))

        async def worker() -> None:
            for _ in numbers:
                try:
                    ends[await ask(llm, "chat")] += 1
                except LLMError as error:
                    ends[type(error).__name__] += 1

        gc.collect()
        await asyncio.gather(*(worker() for _ in range(256)))
        ends["requests"] = len(server.requests)
    return ends


@pytest.mark.parametrize(
    "options", [{"connect": 0}, {"total": -1}, {"idle": math.nan}, {"max_retries": -1}, {"max_bytes": 0}], ids=str
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    name = next(iter(options))
    with pytest.raises(InvalidArgument, match=name):
        TransportOptions(**options)


async def test_headers_are_sent_as_they_are_at_each_request() -> None:
    headers = {"X-Tenant": "one"}
    transport = Transport()
    async with FaultServer(answer()) as server:
        url = URL(server.url + "/chat/completions")
        for tenant in ("one", "two", "two"):
            headers["X-Tenant"] = tenant
            await transport.post(Request(url, headers, b"{}"), bytes)
        await transport.post(Request(url, {"X-Tenant": "three"}, b"{}"), bytes)
        await transport.aclose()
    assert [request.headers["x-tenant"] for request in server.requests] == ["one", "two", "two", "three"]
