"""What the fields of an Airflow connection mean: from text that people typed to checked settings."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timezone, tzinfo
from typing import Any, Protocol
from urllib.parse import SplitResult, quote, urlsplit
from zoneinfo import ZoneInfo

from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.inputs import to_bool, to_seconds
from airflow_provider_timextender.jobs_api import DEFAULT_API_KEY_HEADER, DEFAULT_BASE_URL
from airflow_provider_timextender.vocabulary import Vocabulary

DEFAULT_TIMEOUT = 30.0
"""Seconds to wait for a connection, and again for each piece of an answer."""

MAX_TIMEOUT = 3600

DEFAULT_PORTAL_URL = "https://portal.timextender.com"  # assumed


class ConnectionFields(Protocol):
    """The part of an Airflow connection that is read."""

    conn_id: str
    host: str | None
    port: int | None
    schema: str | None
    password: str | None
    extra: str | None


@dataclass(frozen=True)
class Settings:
    """A checked connection.

    :ivar base_url: without a trailing slash. :ivar timeout: seconds.
    :ivar verify: ``True``, ``False``, or the path of a CA bundle.
    :ivar proxies: URL scheme -> proxy URL; empty leaves it to ``HTTPS_PROXY`` and ``NO_PROXY``.
    :ivar timezone: that of the API's times without an offset.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    api_key_header: str = DEFAULT_API_KEY_HEADER
    timeout: float = DEFAULT_TIMEOUT
    verify: bool | str = True
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    vocabulary: Vocabulary = field(default_factory=Vocabulary, repr=False)
    timezone: tzinfo = timezone.utc  # assumed
    portal_url: str = DEFAULT_PORTAL_URL

    def link(self, job_id: str, trigger_id: str) -> str:
        """Return the portal's address for an execution.

        The portal publishes no address of a single job, so the default leads to its front page; a
        ``portal_url`` with ``{job_id}`` or ``{trigger_id}`` in it has them filled in.
        """
        return self.portal_url.replace("{job_id}", quote(job_id)).replace("{trigger_id}", quote(trigger_id))


def settings(connection: ConnectionFields) -> Settings:
    """Read a connection.

    :raises InvalidInput: naming the connection, the field and the mend, for anything unusable.
    """
    try:
        extra = _extra(connection.extra)
        return Settings(
            api_key=_api_key(connection.password),
            base_url=_base_url(connection, allow_http=_flag(extra, "allow_http")),
            api_key_header=_header(extra.get("api_key_header") or DEFAULT_API_KEY_HEADER),
            timeout=_timeout(extra.get("timeout")),
            verify=_verify(extra.get("verify")),
            proxies=_proxies(extra.get("proxies")),
            vocabulary=Vocabulary().override(_object(extra, "vocabulary")),
            timezone=_timezone(extra.get("timezone")),
            portal_url=_portal_url(extra.get("portal_url")),
        )
    except InvalidInput as error:
        problem = f"Airflow connection {connection.conn_id!r}: {error}"
    # Raised out here, the error drags no frame along in which the API key can be seen; Airflow 3 shows it in
    # the repr of a connection.
    del connection
    raise InvalidInput(problem)


def _extra(text: str | None) -> dict[str, Any]:
    if not text or not text.strip():
        return {}
    try:
        extra = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the extra is not JSON: {error}.") from None
    if not isinstance(extra, dict):
        raise InvalidInput("the extra must be a JSON object.")
    return extra


def _api_key(password: str | None) -> str:
    key = (password or "").strip()
    if not key:
        raise InvalidInput("there is no API key; set it as the password (field API key).")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidInput(
            "the API key (password) has a space, a control character or a letter outside ASCII in it, "
            "which no HTTP header can carry. Copy it again."
        )
    return key


def _base_url(connection: ConnectionFields, *, allow_http: bool) -> str:
    typed = (connection.host or "").strip() or DEFAULT_BASE_URL
    # Airflow takes the scheme of a connection URI's host part, if any, for the schema field.
    scheme = (connection.schema or "").strip() or "https"
    # Nor does such a URI leave the brackets around an IPv6 address.
    bare = f"[{typed}]" if _is_ipv6(typed) else typed.lstrip("/")
    text = typed if "://" in typed else f"{scheme}://{bare}"
    parts, port = _split(text, typed)
    if parts.scheme not in ("http", "https"):
        raise InvalidInput(f"the host {typed!r} has the scheme {parts.scheme!r}; use https.")
    if parts.username or parts.password or "@" in parts.netloc:
        raise InvalidInput("the host must not hold a user name or password; the API key is enough.")
    if not parts.hostname or not text.isprintable() or " " in text:
        raise InvalidInput(f"the host {typed!r} is not a domain such as api.timextender.com.")
    if parts.query or parts.fragment:
        raise InvalidInput(f"the host {typed!r} must end with the domain or a path prefix.")
    if parts.scheme == "http" and not allow_http and not _is_loopback(parts.hostname):
        raise InvalidInput(
            f"the host {typed!r} is plain http, which would show the API key to the network. Use https, "
            'or set {"allow_http": true} in the extra if the network is trusted.'
        )
    port = connection.port if port is None else port
    if port is not None and not 0 < port < 65536:
        raise InvalidInput(f"the port is {port}; it takes 1 to 65535.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default_port = {"http": 80, "https": 443}[parts.scheme]
    suffix = f":{port}" if port and port != default_port else ""
    return f"{parts.scheme}://{host}{suffix}{parts.path.rstrip('/')}"


def _split(text: str, typed: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(text)
        (parts.hostname or "").encode("idna")  # refuses empty labels and too long ones
        return parts, parts.port
    except ValueError:
        raise InvalidInput(f"the host {typed!r} is not a domain such as api.timextender.com.") from None


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _header(name: Any) -> str:
    token = str(name)
    if not token.isascii() or not token.replace("-", "").replace("_", "").isalnum():
        raise InvalidInput(f"api_key_header {token!r} is not the name of an HTTP header.")
    return token


def _timeout(value: Any) -> float:
    if value is None or value == "":
        return DEFAULT_TIMEOUT
    if (seconds := to_seconds(value, "timeout")) > MAX_TIMEOUT:
        raise InvalidInput(f"timeout is {value!r}; it takes at most {MAX_TIMEOUT} seconds.")
    return seconds


def _flag(extra: Mapping[str, Any], key: str) -> bool:
    value = extra.get(key)
    return False if value is None or value == "" else to_bool(value, key)


def _verify(value: Any) -> bool | str:
    if value is None or value == "":
        return True
    if str(value).strip().lower() in ("true", "false"):
        return to_bool(value, "verify")
    if not isinstance(value, str):
        raise InvalidInput(f"verify is {value!r}; it takes true, false or the path of a CA bundle.")
    return value


def _object(extra: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = extra.get(key)
    if isinstance(value, str) and value.strip():  # a form without a JSON editor stores text
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidInput(f"{key} is not JSON: {error}.") from None
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{key} must be a JSON object, not {type(value).__name__}.")
    return value


def _timezone(value: Any) -> tzinfo:
    if value is None or value == "":
        return timezone.utc
    try:
        return ZoneInfo(str(value))
    except (ValueError, OSError, LookupError):  # ZoneInfoNotFoundError is a KeyError
        raise InvalidInput(
            f"timezone is {value!r}, which is no name of the IANA database, such as Europe/Copenhagen."
        ) from None


def _proxies(value: Any) -> Mapping[str, str]:
    proxies = _object({"proxies": value}, "proxies")
    for scheme, url in proxies.items():
        if scheme not in ("http", "https") or not isinstance(url, str) or not _has_host(url):
            raise InvalidInput(
                f"proxies.{scheme} is unusable; proxies takes "
                '{"https": "http://proxy.example:3128"}, for https and http.'
            )
    return proxies


def _has_host(url: str) -> bool:
    try:
        return "://" in url and bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:
        return False


def _portal_url(value: Any) -> str:
    url = str(value or DEFAULT_PORTAL_URL)
    if not re.match(r"https?://[^/\s\[]", url):
        raise InvalidInput(f"portal_url {url!r} is not an http(s) address.")
    return url
