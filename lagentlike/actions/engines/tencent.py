"""Tencent Cloud's search."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, UTC
from typing import Any

from ...errors import InvalidArgument
from ..web_fetch import WebClient
from ..web_service import as_object, as_text, WebService
from .base import Found, SearchEngine

__all__ = ["TencentSearch", "tc3_headers"]


class TencentSearch(SearchEngine):
    """Tencent Cloud's search API, with signed requests.

    By default it asks `SearchPro` (https://cloud.tencent.com/document/product/1806/121811). Lagent asks an older one:
    `action="SearchCommon", version="2020-12-29", service="tms"`.

    Args:
        secret_id: of the key; `TENCENT_SECRET_ID` of the environment by default.
        secret_key: the key itself; `TENCENT_SECRET_KEY` by default.
        api_key: a token of temporary keys, if yours are such.
        action: what is asked.
        version: of the API.
        service: its name.
        host: where it is; of the service's name by default.
        tsn: of `SearchCommon`: how old results may be: 1 a day, 2 a week, 3 a month, 4 a year, 5 half a year, 6 three
            years.
        insite: the only site of the results, such as "zhihu.com".
        category: of `SearchCommon`: what the results are, such as "news" or "baike".
        vrid: of `SearchCommon`: kinds of cards, parted by commas.
        **options: as for `SearchEngine`; `endpoint` is another address of the same host.
    """

    service = WebService("Tencent Cloud", "TENCENT_SECRET_KEY", "https://console.cloud.tencent.com/cam/capi")

    def __init__(
        self,
        secret_id: str | None = None,
        secret_key: str | None = None,
        api_key: str | None = None,
        action: str = "SearchPro",
        version: str = "2025-05-08",
        service: str = "wsa",
        host: str | None = None,
        tsn: int | None = None,
        insite: str | None = None,
        category: str | None = None,
        vrid: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._id = self.service.key(secret_id, "secret_id", "TENCENT_SECRET_ID")
        self._key = self.service.key(secret_key, "secret_key")
        self._token = api_key
        self.action = action
        self._version = version
        self._service = service
        self._host = host or f"{service}.tencentcloudapi.com"
        self.endpoint = self.endpoint or f"https://{self._host}"
        given = {"Tsn": tsn, "Category": category, "Vrid": vrid, "Insite": insite}
        if action == "SearchPro":
            given = {"Site": given.pop("Insite"), **given}
            for name in ("Tsn", "Category", "Vrid"):
                if given[name] is not None:
                    raise InvalidArgument(
                        name.lower(), given[name], 'leave it out: only action="SearchCommon" knows it'
                    )
        self._params = {name: value for name, value in given.items() if value is not None}

    async def _find(self, client: WebClient, query: str) -> list[Found]:
        body = json.dumps({"Query": query, **self._params}).encode()
        headers = tc3_headers(
            self._id, self._key, self._service, self._host, self.action, self._version, body, int(time.time())
        )
        if self._token:
            headers["X-TC-Token"] = self._token
        secrets = [secret for secret in (self._id, self._key, self._token) if secret]
        answer = await self.service.ask(client, "POST", self.endpoint, body=body, headers=headers, secrets=secrets)
        response = as_object(as_object(answer).get("Response"))
        if "Error" in response:
            error = as_object(response["Error"])
            code, message = as_text(error.get("Code")), as_text(error.get("Message"))
            raise self.service.refusal(None, f"{code}: {message}", secrets=secrets)
        if not isinstance(response.get("Pages"), list | None):
            raise self.service.bad("no Pages")
        return list(_pages(response.get("Pages") or []))


def tc3_headers(
    secret_id: str, secret_key: str, service: str, host: str, action: str, version: str, body: bytes, timestamp: int
) -> dict[str, str]:
    """The headers of a signed request (TC3-HMAC-SHA256, https://www.tencentcloud.com/document/api/1131/45290).

    Args:
        secret_id: of the key.
        secret_key: the key itself.
        service: the service's name, such as `wsa`.
        host: where it is.
        action: what is asked.
        version: of the API.
        body: of the request, in JSON.
        timestamp: seconds since 1970.
    """
    content_type = "application/json; charset=utf-8"
    signed = "content-type;host"
    canonical = f"POST\n/\n\ncontent-type:{content_type}\nhost:{host}\n\n{signed}\n{hashlib.sha256(body).hexdigest()}"
    date = datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d")
    scope = f"{date}/{service}/tc3_request"
    to_sign = f"TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"TC3{secret_key}".encode()
    for text in (date, service, "tc3_request"):
        key = hmac.digest(key, text.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return {
        "Authorization": (
            f"TC3-HMAC-SHA256 Credential={secret_id}/{scope}, SignedHeaders={signed}, Signature={signature}"
        ),
        "Content-Type": content_type,
        "Host": host,
        "X-TC-Action": action,
        "X-TC-Timestamp": str(timestamp),
        "X-TC-Version": version,
    }


def _pages(pages: list[Any]) -> Iterator[Found]:
    """The results: each JSON in a text, or in the text `Display` of an object."""
    for item in pages:
        try:
            page = as_object(json.loads(item.get("Display", "") if isinstance(item, Mapping) else item))
        except (ValueError, TypeError, RecursionError):
            continue
        summary = next(
            (text for name in ("content", "passage", "abstract_info") if (text := as_text(page.get(name)))), ""
        )
        yield {"url": as_text(page.get("url")), "title": as_text(page.get("title")), "summ": summary}
