"""Which addresses of the web may be fetched: those of the public internet, however they are written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network, IPv4Address, IPv4Network, IPv6Address, IPv6Network

from yarl import URL

from ..errors import AddressRefused, InvalidArgument

__all__ = ["AddressGuard", "origin"]

Address = IPv4Address | IPv6Address


class AddressGuard:
    """Refuses what is no web address, and addresses that are not on the public internet.

    An address is read once, and what was read is what is fetched, so that nobody can make two readers see two hosts.
    Names pass `check`; where they lead is for `check_host`, with every answer of the name server.

    Args:
        allow_private: True lets every IP address pass; a list lets those pass that are in it, such as
            `["10.1.0.0/16", "127.0.0.1"]`.

    Raises:
        InvalidArgument: what is in the list is no network.

    >>> AddressGuard().check("https://www.example.org/a?b=1")
    URL('https://www.example.org/a?b=1')
    >>> AddressGuard().check("http://[::ffff:127.0.0.1]/")
    Traceback (most recent call last):
    lagentlike.errors.AddressRefused: ::ffff:7f00:1 is an address of a private network or the like, which is not fetched
    """

    def __init__(self, allow_private: bool | Sequence[str] = False) -> None:
        self._all = allow_private is True
        self._allowed = [] if isinstance(allow_private, bool) else [_network(text) for text in allow_private]

    def check(self, url: str) -> URL:
        """The address, read.

        Raises:
            AddressRefused: it is none of http or https, has no host, names a user, leads to a port of another service,
                or to an IP address that is not on the public internet.
        """
        if len(url) > _LONGEST:
            raise AddressRefused(f"the address has {len(url):,} characters, more than {_LONGEST:,}")
        try:
            found = URL(url.strip())
            host, port = (found.raw_host or "").lower(), found.port
            address = _address(host)
        except (ValueError, LookupError):  # yarl raises IndexError for `//[]@`
            raise _no_web_address(url) from None
        if found.scheme not in ("http", "https") or not host or not (address or _NAME.fullmatch(host)):
            raise _no_web_address(url)
        if found.raw_user is not None or found.raw_password is not None:
            raise AddressRefused(f"{origin(url)} is written with a user or a password: leave them out")
        if port in _OTHER_PORTS:
            raise AddressRefused(f"port {port} of {host} belongs to another service than the web")
        if address is not None:
            self.check_host(host, [host])
        return found

    def check_host(self, host: str, addresses: Iterable[str]) -> None:
        """Refuse a host when one of its IP addresses is not on the public internet.

        Args:
            host: as it is called in the message.
            addresses: all that its name leads to.

        Raises:
            AddressRefused: one of them is not.
        """
        if self._all:
            return
        for text in addresses:
            address = ip_address(text)
            if not _is_public(address) and not any(address in network for network in self._allowed):
                raise AddressRefused(f"{host} is an address of a private network or the like, which is not fetched")


def origin(url: object) -> str:
    """Scheme and host of an address: what can be shown of it without its keys."""
    found = re.match(r"(https?://)(?:[^/?#]*@)?([^/?#@]+)", str(url), re.IGNORECASE)
    return found[1] + found[2] if found else "the address"


def _no_web_address(url: str) -> AddressRefused:
    return AddressRefused(f"{url[:200]!r} is no web address: give one that starts with https://")


def _address(host: str) -> Address | None:
    """The IP address that a host is; None for a name.

    Raises:
        ValueError: it ends in a number, as no name does, and is not written as four decimal numbers: 127.1, 0x7f000001,
            0177.0.0.1 and the like are addresses to some readers, and to others not.
    """
    if ":" in host:
        return IPv6Address(host)
    last = host.removesuffix(".").rpartition(".")[2]
    return IPv4Address(host) if _NUMBER.fullmatch(last) else None


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _SPECIAL_V4)
    if address.scope_id is not None:
        return False
    inner = address.ipv4_mapped or (IPv4Address(address.packed[-4:]) if address in _NAT64 else None)
    if inner is not None:
        return _is_public(inner)
    return address.is_global and address in _UNICAST and not any(address in network for network in _SPECIAL_V6)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise InvalidArgument(
            "allow_private", text, f"give addresses or networks, such as '10.1.0.0/16': {error}"
        ) from None


_LONGEST = 8000  # what servers take at least, by RFC 9110
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# The registries of special addresses (https://www.iana.org/assignments/iana-ipv4-special-registry and …-ipv6-…), since
# what `is_global` says depends on the patch level of Python; 168.63.129.16 is where machines of Azure ask their host.
_SPECIAL_V4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "
        "192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 "
        "240.0.0.0/4"
    ).split()
]
_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_SPECIAL_V6 = [IPv6Network(text) for text in "2001::/23 2001:db8::/32 2002::/16 3fff::/20".split()]

# Ports on which no browser fetches (https://fetch.spec.whatwg.org/#port-blocking), and those of well-known databases.
_OTHER_PORTS = frozenset(
    int(text)
    for text in (
        "0 1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113 115 117 119 "
        "123 135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601 636 989 "
        "990 993 995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665 6666 6667 6668 6669 6679 6697 10080 "
        "445 1433 1521 3306 3389 5432 6379 9042 11211 27017"
    ).split()
)
