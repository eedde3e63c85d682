"""What the fields of an Airflow connection mean: from text that people typed to checked settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import quote
from zoneinfo import ZoneInfo

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.inputs import to_bool, to_seconds
from airflow_provider_timextender.jobs_api import DEFAULT_API_KEY_HEADER, DEFAULT_BASE_URL
from airflow_provider_timextender.model import short
from airflow_provider_timextender.provider_info import EXTRA
from airflow_provider_timextender.vocabulary import Vocabulary, fold

MAX_TIMEOUT = 3600


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

    :ivar base_url: without a trailing slash.
    :ivar timeout: seconds to wait for a connection, and again for each piece of an answer.
    :ivar verify: ``True``, ``False``, or the path of a CA bundle.
    :ivar proxies: URL scheme -> proxy URL; empty leaves it to ``HTTPS_PROXY`` and ``NO_PROXY``.
    :ivar timezone: that of the API's times without an offset.
    :ivar warnings: what is odd about the connection and stops nothing, as whole sentences.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    api_key_header: str = DEFAULT_API_KEY_HEADER
    timeout: float = 30.0
    verify: bool | str = True
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    vocabulary: Vocabulary = field(default_factory=Vocabulary, repr=False)
    timezone: tzinfo = UTC  # assumed
    portal_url: str = "https://portal.timextender.com"  # assumed
    warnings: tuple[str, ...] = ()

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
    warnings: list[str] = []
    try:
        extra = _object(connection.extra, "the extra")
        extra = {key: value for key, value in extra.items() if value not in (None, "")}
        warnings += [_unknown(key) for key in extra if key not in EXTRA]
        return Settings(
            api_key=_api_key(connection.password),
            base_url=_base_url(connection, allow_http=to_bool(extra.get("allow_http", False), "allow_http")),
            api_key_header=_header(extra.get("api_key_header", Settings.api_key_header)),
            timeout=_timeout(extra.get("timeout", Settings.timeout)),
            verify=_verify(extra.get("verify", Settings.verify)),
            proxies=_proxies(extra.get("proxies")),
            vocabulary=Vocabulary.of(_object(extra.get("vocabulary"), "vocabulary")),
            timezone=_timezone(extra["timezone"]) if "timezone" in extra else Settings.timezone,
            portal_url=_portal_url(extra.get("portal_url", Settings.portal_url)),
            warnings=tuple(warnings),
        )
    except InvalidInput as error:
        # A misspelt key may well be the reason.
        problem = " ".join([f"Airflow connection {connection.conn_id!r}: {error}", *warnings])
    # Raised out here, the error drags no frame along in which the API key can be seen; Airflow 3 shows it in
    # the repr of a connection.
    del connection
    raise InvalidInput(problem)


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    if isinstance(value, str):  # so is the extra; and a form without a JSON editor stores text
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{what} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} must be a JSON object, not {type(value).__name__}.")
    return value


def _unknown(key: str) -> str:
    """Say that the extra has a key that is not known, without its value, which may be a secret."""
    keys = {fold(known): known for known in EXTRA}
    near = get_close_matches(fold(key), keys, 1)
    known = f"Did you mean {keys[near[0]]!r}?" if near else f"It takes {', '.join(EXTRA)}."
    return f"The extra has the unknown key {short(key)}, which is ignored. {known}"


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
    if "@" in typed:
        raise InvalidInput("the host must not hold a user name or password; the API key is enough.")
    # Of a connection URI, Airflow takes the scheme of the host part, if any, for the schema field, and the
    # brackets from around an IPv6 address.
    scheme = (connection.schema or "").strip() or "https"
    is_ipv6 = typed.count(":") > 1 and re.fullmatch(r"[0-9a-fA-F:.]+", typed)
    bare = f"[{typed}]" if is_ipv6 else typed.lstrip("/")
    text = typed if "://" in typed else f"{scheme}://{bare}"
    try:
        url = parse_url(text)
        host = (url.host or "").encode("idna").decode()  # refuses empty labels and too long ones
    except (LocationParseError, UnicodeError):
        host = ""
    if not host or not text.isprintable() or " " in text:
        raise InvalidInput(f"the host {typed!r} is not a domain such as api.timextender.com.")
    if url.scheme not in ("http", "https"):
        raise InvalidInput(f"the host {typed!r} has the scheme {url.scheme!r}; use https.")
    if url.query or url.fragment:
        raise InvalidInput(f"the host {typed!r} must end with the domain or a path prefix.")
    if url.scheme == "http" and not allow_http and not _is_this_machine(host):
        raise InvalidInput(
            f"the host {typed!r} is plain http, which would show the API key to the network. Use https, "
            'or set {"allow_http": true} in the extra if the network is trusted.'
        )
    port = connection.port if url.port is None else url.port
    if port is not None and not 0 < port < 65536:
        raise InvalidInput(f"the port is {port}; it takes 1 to 65535.")
    port = None if port == {"http": 80, "https": 443}[url.scheme] else port
    return url._replace(port=port, path=(url.path or "").rstrip("/"), query=None, fragment=None).url


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _header(name: Any) -> str:
    token = str(name)
    if not token.isascii() or not token.replace("-", "").replace("_", "").isalnum():
        raise InvalidInput(f"api_key_header {token!r} is not the name of an HTTP header.")
    return token


def _timeout(value: Any) -> float:
    if (seconds := to_seconds(value, "timeout")) > MAX_TIMEOUT:
        raise InvalidInput(f"timeout is {value!r}; it takes at most {MAX_TIMEOUT} seconds.")
    return seconds


def _verify(value: Any) -> bool | str:
    if (word := str(value).strip().lower()) in ("true", "false"):
        return word == "true"
    if not isinstance(value, str):
        raise InvalidInput(f"verify is {value!r}; it takes true, false or the path of a CA bundle.")
    return value


def _timezone(name: Any) -> tzinfo:
    try:
        return ZoneInfo(str(name))
    except (ValueError, OSError, LookupError):  # ZoneInfoNotFoundError is a KeyError
        raise InvalidInput(
            f"timezone is {name!r}, which is no name of the IANA database, such as Europe/Copenhagen."
        ) from None


def _proxies(value: Any) -> Mapping[str, str]:
    proxies = _object(value, "proxies")
    for scheme, url in proxies.items():
        if scheme not in ("http", "https") or not _scheme(url):
            raise InvalidInput(
                f"proxies.{scheme} is unusable; proxies takes "
                '{"https": "http://proxy.example:3128"}, for https and http.'
            )
    return proxies


def _portal_url(value: Any) -> str:
    if _scheme(value) not in ("http", "https"):
        raise InvalidInput(f"portal_url {value!r} is not an http(s) address.")
    return str(value)


def _scheme(url: Any) -> str | None:
    """Return the scheme of an address, ``None`` if it is none of a host."""
    try:
        parts = parse_url(str(url))
    except LocationParseError:
        return None
    return parts.scheme if parts.host and parts.port != 0 else None
