"""A service of the web that answers with JSON, and what its refusals mean."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from ..errors import BadAnswer, FetchError, InvalidArgument, ServiceKeyRefused, ServiceLimited, ServiceQuotaUsed
from .web_fetch import Response, WebClient

__all__ = ["WebService", "as_list", "as_object", "as_text"]

MAX_WAIT = 5.0
"""Most seconds that are waited where a service says when it may be asked again."""

MAX_RETRIES = 3
MAX_MESSAGE = 300
"""Most characters of what a service says about an error."""


@dataclass(frozen=True)
class WebService:
    """How a service is called, and where its key is kept.

    Attributes:
        name: as people know it.
        variable: of the environment, with the key.
        keys: where there are keys.
    """

    name: str
    variable: str = ""
    keys: str = ""

    def key(self, given: str | None, argument: str = "api_key", variable: str | None = None) -> str:
        """The key: what is given, or what the environment has.

        Args:
            given: by the caller; None for the environment's.
            argument: its name, for the error.
            variable: of the environment; the service's own by default.

        Raises:
            InvalidArgument: there is none; the message names the variable.
        """
        variable = variable or self.variable
        key = os.environ.get(variable, "") if given is None else given
        if not isinstance(key, str) or not key.strip():
            where = f" ({self.keys} gives keys)" if self.keys else ""
            raise InvalidArgument(
                argument,
                given,
                f"{self.name} needs a key: give {argument}, or set {variable} in the environment{where}",
            )
        return key.strip()

    async def ask(
        self, client: WebClient, method: str, url: str, *, secrets: Sequence[str] = (), **options: Any
    ) -> Any:
        """The value of its answer. Where it says that it will answer in a moment, it is asked again.

        Args:
            client: asks.
            method: GET or POST.
            url: the address.
            secrets: the keys, which no error shows.
            **options: as for `WebClient.request`.

        Raises:
            ServiceKeyRefused: it does not take the key.
            ServiceLimited: it was asked too often, or (`ServiceQuotaUsed`) its quota is used up.
            BadAnswer: it answered no JSON.
            FetchError: any other error.
        """
        retries = MAX_RETRIES
        while (answer := await client.request(method, url, **options)).status >= 400:
            error = self.refusal(answer.status, _message(answer), answer.headers, secrets)
            wait = error.retry_after if type(error) is ServiceLimited else None
            if wait is None or wait > MAX_WAIT or not retries:
                raise error
            retries -= 1
            await asyncio.sleep(
                wait + random.uniform(0, 0.1 + wait)
            )  # those who asked at once do not come at once again
        return answer.json()

    def refusal(
        self, status: int | None, message: str, headers: Mapping[str, str] | None = None, secrets: Sequence[str] = ()
    ) -> FetchError:
        """The error that an answer stands for.

        Args:
            status: the HTTP status; None where the error is in an answer with 200.
            message: what the service says.
            headers: of the answer.
            secrets: which are not shown.
        """
        for secret in secrets:
            message = message.replace(secret, "(the key)")
        said = ": ".join(text for text in (str(status) if status else "", message[:MAX_MESSAGE]) if text)
        if status == 402 or _QUOTA.search(message):
            return ServiceQuotaUsed(f"the quota of {self.name} is used up ({said})", status=status)
        if status == 429 or _LIMITED.search(message):
            seconds = _retry_after(headers or {})
            wait = "wait a little" if seconds is None else f"ask again in {seconds:g} seconds"
            return ServiceLimited(
                f"{self.name} is asked too often ({said}): {wait}", status=status, retry_after=seconds
            )
        if status in (401, 403) or _KEY.search(message):
            cure = f": set {self.variable} to one that it takes" if self.variable else ""
            return ServiceKeyRefused(f"{self.name} does not take the key ({said}){cure}", status=status)
        return FetchError(f"{self.name} answered with an error ({said or 'without a word'})", status=status)

    def bad(self, what: str) -> BadAnswer:
        """The error of an answer that is not in the shape it should be."""
        return BadAnswer(f"{self.name} answered in an unknown form: {what}")


def as_object(value: Any) -> Mapping[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a JSON array; an empty list if it is none."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def as_text(value: Any) -> str:
    """The value if it is a text, a number as it is written, else ""."""
    return value if isinstance(value, str) else str(value) if type(value) in (int, float) else ""


def _message(answer: Response) -> str:
    """What a service says about an error, wherever it says it."""
    try:
        value = json.loads(answer.text)
    except (ValueError, RecursionError):
        return "" if "<" in answer.text[:200] else " ".join(answer.text[: MAX_MESSAGE * 2].split())
    found = [as_object(value)]
    for name in ("error", "errors", "errorDetails"):
        inner = found[0].get(name)
        if isinstance(inner, str):
            return inner
        if isinstance(inner, list) and inner and isinstance(inner[0], str):
            return inner[0]
        found += as_list(inner) or [as_object(inner)]
    words = [as_text(item.get(name)) for item in found for name in ("code", "detail", "message")]
    return " ".join(dict.fromkeys(word for word in words if word))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until one may ask again; `X-RateLimit-Reset: 1, 1419704` tells of a second's and a month's limit."""
    text = headers.get("Retry-After") or headers.get("X-RateLimit-Reset", "").partition(",")[0]
    try:
        return max(0.0, float(text))
    except ValueError:
        try:
            return max(0.0, round(parsedate_to_datetime(text).timestamp() - time.time(), 1))
        except (TypeError, ValueError, OverflowError):
            return None


_QUOTA = re.compile(
    r"not enough credits|run out of searches|quota|RESOURCE_?INSUFFICIENT|usage limit|out of credits", re.IGNORECASE
)
_LIMITED = re.compile(r"RATE_?LIMIT|RequestLimitExceeded|too many requests|hourly throughput", re.IGNORECASE)
_KEY = re.compile(
    r"SUBSCRIPTION_TOKEN|x-subscription-token|invalid api key|unauthori[sz]ed|AuthFailure|access ?denied", re.IGNORECASE
)
