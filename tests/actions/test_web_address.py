"""Which addresses are fetched."""

from __future__ import annotations

import contextlib
import random
import socket
from ipaddress import ip_address

import pytest

from lagentlike.actions.web_address import AddressGuard, origin
from lagentlike.errors import AddressRefused, InvalidArgument

REFUSED = {
    "loopback": "http://127.0.0.1/",
    "all of loopback": "http://127.255.255.254/",
    "loopback of IPv6": "http://[::1]/",
    "loopback of IPv6 in full": "http://[0000:0000:0000:0000:0000:0000:0000:0001]/",
    "this host": "http://0.0.0.0/",
    "this host of IPv6": "http://[::]/",
    "this network": "http://0.1.2.3/",
    "private, 10/8": "http://10.0.0.1/",
    "private, 172.16/12": "http://172.31.255.255/",
    "private, 192.168/16": "http://192.168.1.1/",
    "unique local": "http://[fd00::1]/",
    "link-local": "http://169.254.1.1/",
    "link-local of IPv6": "http://[fe80::1]/",
    "site-local": "http://[fec0::1]/",
    "metadata of clouds": "http://169.254.169.254/latest/meta-data/",
    "metadata of AWS by IPv6": "http://[fd00:ec2::254]/",
    "metadata of Alibaba": "http://100.100.100.200/",
    "metadata of Oracle": "http://192.0.0.192/",
    "host of Azure": "http://168.63.129.16/",
    "carrier-grade NAT": "http://100.64.0.1/",
    "protocol assignments": "http://192.0.0.8/",
    "documentation": "http://192.0.2.1/",
    "documentation 2": "http://198.51.100.1/",
    "documentation 3": "http://203.0.113.1/",
    "documentation of IPv6": "http://[2001:db8::1]/",
    "documentation of IPv6, new": "http://[3fff::1]/",
    "benchmarks": "http://198.19.0.1/",
    "benchmarks of IPv6": "http://[2001:2::1]/",
    "6to4 relays": "http://192.88.99.1/",
    "multicast": "http://224.0.0.1/",
    "multicast of IPv6": "http://[ff02::1]/",
    "reserved": "http://240.0.0.1/",
    "broadcast": "http://255.255.255.255/",
    "mapped": "http://[::ffff:127.0.0.1]/",
    "mapped, in hex": "http://[::ffff:a00:1]/",
    "compatible": "http://[::127.0.0.1]/",
    "translated": "http://[::ffff:0:127.0.0.1]/",
    "NAT64": "http://[64:ff9b::10.0.0.1]/",
    "NAT64 of the metadata": "http://[64:ff9b::a9fe:a9fe]/",
    "NAT64, local use": "http://[64:ff9b:1::808:808]/",
    "6to4": "http://[2002:7f00:1::]/",
    "6to4 of a public address": "http://[2002:808:808::1]/",
    "Teredo": "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "discard": "http://[100::1]/",
    "segment routing": "http://[5f00::1]/",
    "zone": "http://[fe80::1%25eth0]/",
    "zone of a public address": "http://[2606:4700:4700::1111%25lo]/",
    "decimal": "http://2130706433/",
    "hexadecimal": "http://0x7f000001/",
    "hexadecimal in capitals": "http://0X7F000001/",
    "hexadecimal in parts": "http://0x7f.0x0.0x0.0x1/",
    "octal": "http://0177.0.0.1/",
    "octal, short": "http://0177.1/",
    "hexadecimal, short": "http://0x7f.1/",
    "short": "http://127.1/",
    "shorter": "http://0/",
    "leading zeros": "http://127.000.000.001/",
    "too large to be one": "http://127.0.0.256/",
    "a public one in octal": "http://010.8.8.8/",
    "trailing dot": "http://127.0.0.1./",
    "full-width digits": "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
    "circled digits": "http://\u2460\u2461\u2466.0.0.1/",
    "ideographic full stops": "http://127\u30020\u30020\u30021/",
    "percent signs": "http://%31%32%37.0.0.1/",
    "a NUL": "http://127.0.0.1%00.example.org/",
    "a user": "http://www.example.org@127.0.0.1/",
    "a user before a public host": "http://user@www.example.org/",
    "an address as the user": "http://127.0.0.1:80@www.example.org/",
    "a backslash": "http://www.example.org\\@127.0.0.1/",
    "file": "file:///etc/passwd",
    "file with a host": "file://www.example.org/etc/passwd",
    "gopher": "gopher://www.example.org/",
    "data": "data:text/html,x",
    "ftp": "ftp://www.example.org/",
    "javascript": "javascript:alert(1)",
    "no scheme": "//www.example.org/",
    "no scheme at all": "www.example.org",
    "no host": "http:///etc/passwd",
    "nothing": "",
    "an open bracket": "http://[::1",
    "no port": "http://www.example.org:99999/",
    "two ports": "http://www.example.org:80:90/",
    "port of SSH": "http://www.example.org:22/",
    "port of mail": "https://www.example.org:25/",
    "port of Redis": "http://www.example.org:6379/",
    "a space in the host": "http://www.exa mple.org/",
    "what yarl stumbles over": "http://[]@www.example.org/",
    "too long": "http://www.example.org/" + "a" * 8000,
}


@pytest.mark.parametrize("url", REFUSED.values(), ids=REFUSED)
def test_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        AddressGuard().check(url)
    assert refused.value.status is None
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://www.example.org/a?b=1#c", "www.example.org"),
        ("  HTTP://WWW.EXAMPLE.ORG ", "www.example.org"),
        ("http://example.org.:8080/", "example.org."),
        ("https://b\u00fccher.example/", "xn--bcher-kva.example"),
        ("http://8.8.8.8/", "8.8.8.8"),
        ("http://[2606:4700:4700::1111]/", "2606:4700:4700::1111"),
        ("http://[::ffff:8.8.8.8]/", "::ffff:808:808"),
        ("http://[64:ff9b::8.8.8.8]/", "64:ff9b::808:808"),
        ("https://1.1.1.1.example.org/", "1.1.1.1.example.org"),
        ("https://my_host.example.org/", "my_host.example.org"),
        ("http://www.example.org/#@127.0.0.1/", "www.example.org"),
        ("http://www.example.org/?u=http://127.0.0.1/", "www.example.org"),
    ],
)
def test_is_let_pass(url: str, host: str) -> None:
    assert AddressGuard().check(url).raw_host == host


def test_no_mutation_of_an_address_gets_through_or_does_harm() -> None:
    draw = random.Random(1)
    letters = "0123456789.:/[]@%#?\\xXaf １。\u200b\u00ad\u0660\t\n\0-_~\u212a\u2024\ud800"
    passed = 0
    for _ in range(5000):
        url = list(draw.choice(list(REFUSED.values())))
        for _ in range(draw.randint(1, 5)):
            at = draw.randrange(len(url) + 1)
            url[at : at + draw.randint(0, 1)] = draw.choice(letters)
        with contextlib.suppress(AddressRefused):
            host = AddressGuard().check("".join(url)).raw_host
            passed += 1
            with contextlib.suppress(ValueError):
                assert ip_address(host or "").is_global, url
            with contextlib.suppress(OSError):  # nothing that a system's resolver would take for a number
                assert ip_address(socket.inet_ntoa(socket.inet_aton(host or ""))).is_global, url
    assert passed > 50


def test_one_private_answer_of_several_is_too_many() -> None:
    guard = AddressGuard()
    guard.check_host("www.example.org", ["8.8.8.8", "2606:4700:4700::1111"])
    for private in ("10.0.0.1", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "64:ff9b::7f00:1"):
        with pytest.raises(AddressRefused, match=r"www\.example\.org is an address of a private network"):
            guard.check_host("www.example.org", ["8.8.8.8", private])


def test_private_networks_can_be_allowed_one_by_one() -> None:
    guard = AddressGuard(["10.1.0.0/16", "127.0.0.1", "fd00::/64"])
    for url in ("http://10.1.2.3/", "http://127.0.0.1:9000/", "http://[fd00::5]/", "http://8.8.8.8/"):
        guard.check(url)
    for url in ("http://10.2.0.1/", "http://127.0.0.2/", "http://[fd01::5]/", "http://user@10.1.2.3/", "file:///a"):
        with pytest.raises(AddressRefused):
            guard.check(url)
    AddressGuard(True).check("http://192.168.0.1/")
    with pytest.raises(InvalidArgument, match=r"'10\.1\.2\.3/8'.*give addresses or networks"):
        AddressGuard(["10.1.2.3/8"])


def test_an_address_is_shown_without_its_keys() -> None:
    assert origin("https://user:hush@www.example.org:8443/a?key=hush#hush") == "https://www.example.org:8443"
    assert origin("nonsense") == "the address"
