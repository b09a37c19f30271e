"""What the client of the web fetches, and what not."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import ssl
import subprocess
import time
import weakref
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from lagentlike.actions.web_fetch import WebClient
from lagentlike.errors import AddressRefused, BadAnswer, FetchError

from .web_site import Answer, Asked, redirect, Site

ALLOWED, FORBIDDEN = "127.0.0.2", "127.0.0.3"  # both are this machine; the tests allow only the first


class Names(AbstractResolver):
    """A name server whose answers are given one after another, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        self.asked.append(host)
        if self.answers == [[]]:
            raise OSError("there is no such name")
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def opened(*args: Any, **options: Any) -> AsyncIterator[WebClient]:
    client = WebClient(*(args or (10,)), **{"allow_private": [ALLOWED], **options})
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site({"/": Answer(b"seen")}, ALLOWED) as site:
        yield site


@pytest.fixture
def inside() -> Iterator[Site]:
    with Site({"/": Answer(b"secret"), "/latest/meta-data/": Answer(b"secret")}, FORBIDDEN) as inside:
        yield inside


async def test_the_address_that_was_checked_is_the_one_that_is_asked(site: Site, inside: Site) -> None:
    names = Names([ALLOWED], [FORBIDDEN])
    async with opened(resolver=names) as client:
        answer = await client.request("GET", f"http://shop.example:{site.port}/")
        assert answer.text == "seen"
        assert names.asked == ["shop.example"]  # looked up once: for the check and the connection alike
        assert site.asked[0].headers["Host"] == f"shop.example:{site.port}"
        with pytest.raises(AddressRefused):  # another connection, and now the name leads inside
            await client.request("GET", f"http://shop.example:{inside.port}/")
    assert inside.connections == 0


async def test_a_connection_that_is_kept_leads_where_it_led(site: Site, inside: Site) -> None:
    names = Names([ALLOWED], [FORBIDDEN])
    async with opened(resolver=names) as client:
        for _ in range(3):
            assert (await client.request("GET", f"http://shop.example:{site.port}/")).text == "seen"
        assert (site.connections, len(names.asked)) == (1, 1)
        for url in (
            f"http://shop.example@{FORBIDDEN}:{inside.port}/",
            f"http://{FORBIDDEN}:{inside.port}/",
            "file:///",
        ):
            with pytest.raises(AddressRefused):
                await client.request("GET", url)
    assert inside.connections == 0


async def test_a_connection_is_not_shared_with_a_client_that_may_less(site: Site) -> None:
    async with opened() as client, opened(allow_private=False) as strict:
        await client.request("GET", site.url)
        with pytest.raises(AddressRefused):
            await strict.request("GET", site.url)


@pytest.mark.parametrize("answers", [[ALLOWED, FORBIDDEN], [FORBIDDEN, ALLOWED], [ALLOWED, "::ffff:127.0.0.3"]])
async def test_a_name_with_one_private_address_is_refused(site: Site, answers: list[str]) -> None:
    async with opened(resolver=Names(answers)) as client:
        with pytest.raises(AddressRefused, match=r"shop\.example is an address of a private network"):
            await client.request("GET", f"http://shop.example:{site.port}/")
    assert site.connections == 0


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST"])
async def test_names_of_this_machine_are_refused(inside: Site, name: str) -> None:
    async with opened(allow_private=False) as client:
        with pytest.raises(AddressRefused, match="is an address of a private network"):
            await client.request("GET", f"http://{name}:{inside.port}/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_inside_is_refused(site: Site, inside: Site, status: int) -> None:
    targets = [
        f"http://{FORBIDDEN}:{inside.port}/latest/meta-data/",
        f"//{FORBIDDEN}:{inside.port}/",
        f"http://inside.example:{inside.port}/",
        "file:///etc/passwd",
        "http://[::1]/",
        f"http://shop.example@{FORBIDDEN}/",
    ]
    async with opened(resolver=Names([ALLOWED], [FORBIDDEN])) as client:
        for target in targets:
            site.routes["/moved"] = redirect(target, status)
            with pytest.raises(AddressRefused):
                await client.request("GET", f"http://shop.example:{site.port}/moved")
    assert inside.connections == 0


async def test_redirects_are_followed_a_few_times_and_carry_no_keys(site: Site) -> None:
    site.routes |= {"/1": redirect("/2"), "/2": redirect("3?a=b"), "/3": Answer(b"end"), "/round": redirect("/round")}
    async with opened() as client:
        answer = await client.request("GET", f"{site.url}/1", params={"k": "v"}, headers={"X-Key": "hush"})
        assert (answer.url, answer.text) == (f"{site.url}/3?a=b", "end")
        assert [("X-Key" in asked.headers, asked.query) for asked in site.asked] == [
            (True, {"k": "v"}), (False, {}), (False, {"a": "b"}),
        ]  # fmt: skip
        with pytest.raises(FetchError, match="redirects more than 5 times"):
            await client.request("GET", f"{site.url}/round")
        assert (await client.request("POST", f"{site.url}/1", body=b"x")).status == 302
    async with opened(max_redirects=0) as client:
        with pytest.raises(FetchError, match=f"http://{ALLOWED}:{site.port} redirects"):
            await client.request("GET", f"{site.url}/1")


async def test_tls_is_checked_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
         "-days", "2", "-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    named: list[str | None] = []
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server.sni_callback = lambda connection, name, context: named.append(name)
    with Site({"/": Answer(b"seen")}, ALLOWED, server) as site:
        async with opened(resolver=Names([ALLOWED])) as client:
            trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
            client._opened().connector._ssl = trusting
            assert (await client.request("GET", f"https://shop.example:{site.port}/")).text == "seen"
            with pytest.raises(FetchError, match="cannot be reached"):
                await client.request("GET", f"https://other.example:{site.port}/")
    assert named == ["shop.example", "other.example"]


async def test_a_proxy_of_the_environment_is_not_used(
    site: Site, inside: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, inside.url)
    monkeypatch.delenv("no_proxy", raising=False)
    async with opened() as client:
        assert (await client.request("GET", site.url)).text == "seen"
    assert inside.connections == 0


async def test_cookies_are_not_kept(site: Site) -> None:
    site.routes["/"] = Answer(b"seen", headers={"Set-Cookie": "who=you; Path=/"})
    async with opened() as client:
        for _ in range(2):
            await client.request("GET", site.url)
    assert ["Cookie" in asked.headers for asked in site.asked] == [False, False]


def packed(body: bytes, wbits: int) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return stream.compress(body) + stream.flush()


TEXT = "".join(f"line {n} of it\n" for n in range(20_000)).encode()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        ("gzip", gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]) + b"\0" * 9),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", packed(TEXT, -15)),
        ("identity", TEXT),
    ],
)
async def test_packed_answers_are_unpacked(site: Site, encoding: str, body: bytes) -> None:
    site.routes["/packed"] = Answer(body, headers={"Content-Encoding": encoding})
    async with opened() as client:
        assert (await client.request("GET", f"{site.url}/packed")).body == TEXT
    assert "br" not in site.asked[0].headers["Accept-Encoding"]


def test_every_cut_of_a_packed_answer_unpacks_alike() -> None:
    from lagentlike.actions.web_fetch import _unpacker

    body = bytes(200_000)
    for size in (1, 7, 65536):
        unpack = _unpacker("gzip")
        assert unpack is not None
        sent = gzip.compress(body)
        parts = [part for at in range(0, len(sent), size) for part in unpack(sent[at : at + size])]
        assert b"".join(parts) == body
        assert max(map(len, parts)) <= 65536


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("gzip", gzip.compress(bytes(300_000_000)), "more than 4,194,304 bytes"),
        ("deflate", zlib.compress(bytes(100_000_000)), "more than 4,194,304 bytes"),
        ("gzip", gzip.compress(gzip.compress(bytes(300_000_000)))[:-8], None),  # unpacked once, as it says
        ("gzip, gzip", b"x", "the encoding 'gzip, gzip', which was not asked for"),
        ("br", b"x", "the encoding 'br', which was not asked for"),
        ("gzip", b"no gzip", "cannot be unpacked"),
        ("", b"x" * 5_000_000, "more than 4,194,304 bytes"),
    ],
)
async def test_bombs_and_damaged_answers_are_refused(site: Site, encoding: str, body: bytes, said: str | None) -> None:
    site.routes["/bomb"] = Answer(body, headers={"Content-Encoding": encoding} if encoding else None)
    started = time.process_time()
    async with opened() as client:
        if said is None:
            assert len((await client.request("GET", f"{site.url}/bomb")).body) < 1_000_000
        else:
            with pytest.raises(FetchError, match=said):
                await client.request("GET", f"{site.url}/bomb")
        assert (await client.request("GET", site.url)).text == "seen"  # and the client goes on
    assert time.process_time() - started < 5


async def test_what_was_refused_is_forgotten_at_once(site: Site) -> None:
    site.routes["/bomb"] = Answer(gzip.compress(bytes(9_000_000)), headers={"Content-Encoding": "gzip"})
    refused: list[weakref.ref[FetchError]] = []
    gc.disable()  # what goes without it is in no circle, and frees the 4 MiB that were read with it
    try:
        async with opened() as client:
            try:
                await client.request("GET", f"{site.url}/bomb")
            except FetchError as error:
                refused.append(weakref.ref(error))
        assert refused[0]() is None
    finally:
        gc.enable()


async def test_an_endless_answer_without_a_length_is_cut_off(site: Site) -> None:
    def endless(asked: Asked) -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    site.routes["/endless"] = endless
    async with opened() as client:
        with pytest.raises(FetchError, match="more than 4,194,304 bytes"):
            await client.request("GET", f"{site.url}/endless")


async def test_a_body_that_drips_is_given_up_in_time(site: Site) -> None:
    def drip(asked: Asked) -> Iterator[bytes]:
        while True:
            time.sleep(0.05)
            yield b"x"

    site.routes["/drip"] = drip
    started = time.monotonic()
    async with opened(0.5) as client:
        with pytest.raises(FetchError, match=rf"http://{ALLOWED}:\d+ did not answer within 0\.5 seconds"):
            await client.request("GET", f"{site.url}/drip?key=hush")
    assert time.monotonic() - started < 10


async def test_a_kept_connection_that_ends_is_made_anew(site: Site) -> None:
    served: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request of a connection, and ends at the next."""
        for number in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            served.append(head.split()[0])
            if number == 0:
                await reader.readexactly(4)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nseen")
        writer.close()

    server = await asyncio.start_server(serve, ALLOWED, 0)
    port = server.sockets[0].getsockname()[1]
    async with opened() as client:
        for _ in range(3):
            assert (await client.request("POST", f"http://{ALLOWED}:{port}/", body=b"body")).text == "seen"
    server.close()
    await server.wait_closed()
    assert len(served) == 5


async def test_errors_show_no_keys(site: Site) -> None:
    site.routes["/text"] = Answer(b"<html>")
    async with opened(resolver=Names([])) as client:
        for url in (
            f"http://{ALLOWED}:1024/a?key=hush",
            f"{site.url}/missing?key=hush",
            "http://gone.example/?key=hush",
        ):
            with pytest.raises(FetchError) as refused:
                (await client.request("GET", url)).check_status()
            assert "hush" not in str(refused.value)
        answer = await client.request("GET", f"{site.url}/text?key=hush")
        with pytest.raises(BadAnswer, match=f"http://{ALLOWED}:{site.port} answered something that is no JSON") as bad:
            answer.json()
        assert "hush" not in str(bad.value)
        with pytest.raises(FetchError, match="answered 404 Not Found") as missing:
            (await client.request("GET", f"{site.url}/missing")).check_status()
        assert missing.value.status == 404


async def test_a_client_serves_one_loop_after_another(site: Site) -> None:
    client = WebClient(10, [ALLOWED])

    async def once() -> str:
        try:
            return (await client.request("GET", site.url)).text
        finally:
            await client.close()

    assert await once() == "seen"
    assert await asyncio.to_thread(asyncio.run, once()) == "seen"
