"""Airflow connections: every field, and every way to get one wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_timextender.connection import Settings, settings
from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.jobs_api import DEFAULT_BASE_URL
from airflow_provider_timextender.provider_info import EXTRA, get_provider_info

KEY = "k3y"
JOB = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
TRIGGER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"


@dataclass
class Fields:
    conn_id: str = "tx"
    host: str | None = None
    port: int | None = None
    schema: str | None = None
    password: str | None = KEY
    extra: str | None = None


def given(extra: Any = None, **fields: Any) -> Settings:
    return settings(Fields(extra=extra if extra is None else json.dumps(extra), **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "api.example.com"},
        {"host": "api.example.com/"},
        {"host": "api.example.com//"},
        {"host": " api.example.com\n"},
        {"host": "API.Example.COM"},
        {"host": "//api.example.com"},
        {"host": "api.example.com:443"},
        {"host": "https://api.example.com"},
        {"host": "HTTPS://api.example.com/"},
        {"host": "https://api.example.com:443/"},
        {"host": "api.example.com", "schema": "https"},
        {"host": "api.example.com", "port": 443},
        {"host": "https://api.example.com", "schema": "http"},
    ],
)
def test_r36_many_spellings_one_url(fields: dict[str, Any]) -> None:
    assert given(**fields).base_url == "https://api.example.com"


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, DEFAULT_BASE_URL),
        ({"host": " "}, DEFAULT_BASE_URL),
        ({"host": "api.example.com:8443"}, "https://api.example.com:8443"),
        ({"host": "api.example.com", "port": 8443}, "https://api.example.com:8443"),
        ({"host": "gateway.example.com/timextender/v1/"}, "https://gateway.example.com/timextender/v1"),
        ({"host": "http://localhost:8080"}, "http://localhost:8080"),
        ({"host": "127.0.0.1", "schema": "http", "port": 80}, "http://127.0.0.1"),
        ({"host": "http://[::1]:81/x"}, "http://[::1]:81/x"),
        ({"host": "::1", "port": 8080}, "https://[::1]:8080"),
        ({"host": "2001:db8::ff00:42:8329"}, "https://[2001:db8::ff00:42:8329]"),
        ({"host": "http://127.1.2.3:81"}, "http://127.1.2.3:81"),
        ({"host": "http://api.localhost"}, "http://api.localhost"),
        ({"host": "b\xfccher.example/a%20b"}, "https://xn--bcher-kva.example/a%20b"),
    ],
)
def test_r36_ports_prefixes_and_loopback(fields: dict[str, Any], url: str) -> None:
    assert given(**fields).base_url == url


@pytest.mark.parametrize("port", [-1, 70000])
def test_r36_a_port_that_is_none(port: int) -> None:
    with pytest.raises(InvalidInput, match=f"the port is {port}; it takes 1 to 65535"):
        given(host="api.example.com", port=port)


def test_plain_http_elsewhere_needs_permission() -> None:
    with pytest.raises(InvalidInput, match=r"connection 'tx': the host .* is plain http.*allow_http"):
        given(host="http://api.example.com")
    with pytest.raises(InvalidInput, match="is plain http"):
        given(host="http://localhost.example.com")
    for host in ("http://127.0.0.1.example.com", "http://example.com/localhost", "http://notlocalhost"):
        with pytest.raises(InvalidInput, match="is plain http"):
            given(host=host)
    with pytest.raises(InvalidInput, match="is plain http"):
        given({"allow_http": "false"}, host="api.example.com", schema="http")
    assert given({"allow_http": True}, host="http://api.example.com").base_url == "http://api.example.com"


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("ftp://api.example.com", "scheme 'ftp'; use https"),
        ("https://me:pw@api.example.com", "must not hold a user name"),
        ("https://me:pw@api example.com:port", "must not hold a user name"),
        ("https://api.example.com\\@elsewhere.example", "must not hold a user name"),
        ("https://api.example.com/?key=1", "path prefix"),
        ("https://api.example.com/#x", "path prefix"),
        ("https://", "is not a domain"),
        ("api example.com", "is not a domain"),
        ("api.example.com/\x1b[31m", "is not a domain"),
        ("api.example.com/\0", "is not a domain"),
        ("api.exam\r\nple.com", "is not a domain"),
        ("api.example.com:port", "is not a domain"),
        ("https://[::1", "is not a domain"),
        ("api..example.com", "is not a domain"),
        (f"{'a' * 64}.example.com", "is not a domain"),
        ("api.example.com:0", "the port is 0|is not a domain"),
    ],
)
def test_unusable_hosts(host: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        given(host=host)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("password", [None, "", "  "])
def test_missing_key(password: str | None) -> None:
    with pytest.raises(InvalidInput, match="connection 'tx': there is no API key"):
        given(password=password)


@pytest.mark.parametrize("password", ["s3cr3t two", "s3cr3t\r\nx: y", "s3cr3té", "s3cr3t\0"])
def test_r34_a_key_that_no_header_can_carry_is_refused_without_showing_it(password: str) -> None:
    with pytest.raises(InvalidInput, match="no HTTP header can carry") as caught:
        given(password=password)
    assert "s3cr3t" not in repr(caught.value)
    assert caught.value.__context__ is None


def test_r34_neither_key_nor_proxies_show_in_a_repr() -> None:
    shown = repr(given({"proxies": {"https": "http://user:pass@proxy:1"}}))
    assert KEY not in shown
    assert "pass" not in shown


def test_key_copied_with_white_space() -> None:
    assert given(password=f" {KEY}\n").api_key == KEY


def test_defaults() -> None:
    found = given({"timeout": None, "verify": None, "proxies": None, "vocabulary": None, "more": None})
    assert found == given()
    assert (found.timeout, found.verify, found.api_key_header) == (30.0, True, "x-api-key")
    assert found.portal_url == "https://portal.timextender.com"


EVERY_EXTRA = {
    "timeout": 5,
    "verify": "/etc/ca.pem",
    "proxies": {"https": "http://proxy:3128"},
    "api_key_header": "Ocp-Apim-Subscription-Key",
    "vocabulary": {"states": {"succeeded": "Completed"}},
    "portal_url": "https://portal.example.com/jobs/{job_id}?run={trigger_id}",
    "allow_http": True,
    "timezone": "Europe/Copenhagen",
}


def test_every_extra() -> None:
    found = given(EVERY_EXTRA, host="http://api.example.com")
    assert found.timeout == 5
    assert found.timezone == ZoneInfo("Europe/Copenhagen")
    assert found.verify == "/etc/ca.pem"
    assert found.proxies == {"https": "http://proxy:3128"}
    assert found.api_key_header == "Ocp-Apim-Subscription-Key"
    assert found.vocabulary.meaning("states", "completed") == "succeeded"
    assert found.link(JOB, TRIGGER) == f"https://portal.example.com/jobs/{JOB}?run={TRIGGER}"


def test_a_form_may_store_text() -> None:
    found = given(
        {"timeout": "5", "verify": "False", "vocabulary": '{"states": {"failed": "X"}}', "proxies": ""}
    )
    assert (found.timeout, found.verify) == (5, False)
    assert found.vocabulary.meaning("states", "x") == "failed"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"timeout": 0}, "timeout is 0; it takes a number of seconds above 0"),
        ({"timeout": "soon"}, "timeout is 'soon'"),
        ({"timeout": True}, "timeout is True"),
        ({"timeout": "inf"}, "timeout is 'inf'"),
        ({"timeout": 10**400}, "timeout is 1000"),
        ({"timeout": 1e10}, "timeout is 10000000000.0; it takes at most 3600 seconds"),
        ({"verify": 3}, "verify is 3; it takes true, false or the path"),
        ({"proxies": "http://p"}, "proxies is not JSON"),
        ({"proxies": {"ftp": "http://p:1"}}, r"proxies\.ftp is unusable"),
        ({"proxies": {"https": "p:1"}}, r"proxies\.https is unusable"),
        ({"proxies": {"https": "http://["}}, r"proxies\.https is unusable"),
        ({"proxies": {"https": "http://p:port"}}, r"proxies\.https is unusable"),
        ({"proxies": {"https": "http://"}}, r"proxies\.https is unusable"),
        ({"proxies": ["x"]}, "proxies must be a JSON object, not list"),
        ({"api_key_header": "x key:"}, "api_key_header 'x key:' is not the name of an HTTP header"),
        ({"api_key_header": "x-key\r\nx-other"}, "api_key_header .* is not the name of an HTTP header"),
        ({"vocabulary": {"stats": {}}}, "vocabulary has no entry 'stats'"),
        ({"portal_url": "javascript:alert(1)"}, "portal_url 'javascript:alert.*not an http"),
        ({"portal_url": "http://["}, r"portal_url 'http://\[' is not an http"),
        ({"allow_http": "maybe"}, "allow_http is 'maybe'"),
    ],
)
def test_unusable_extras(extra: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=f"connection 'tx': {says}"):
        given(extra)


@pytest.mark.parametrize(
    ("extra", "says"), [("{", "is not JSON"), ("[" * 10**5, "is not JSON"), ("[1]", "must be a JSON object")]
)
def test_an_extra_that_is_no_json_object(extra: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        settings(Fields(extra=extra))
    assert settings(Fields(extra=" ")) == given()


def test_r35_the_form_offers_every_extra() -> None:
    assert set(get_provider_info()["connection-types"][0]["conn-fields"]) == set(EVERY_EXTRA)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("vocablary", "Did you mean 'vocabulary'?"),
        ("Vocabulary", "Did you mean 'vocabulary'?"),
        ("apiKeyHeader", "Did you mean 'api_key_header'?"),
        ("time-zone", "Did you mean 'timezone'?"),
        ("colour", "It takes timeout, verify, proxies, "),
    ],
)
def test_r48_an_unknown_key_of_the_extra_is_a_warning_that_names_the_near_one(key: str, says: str) -> None:
    (warning,) = given({key: {"word": "s3cret"}, "timeout": 5}).warnings
    assert warning.startswith(f"The extra has the unknown key '{key}', which is ignored.")
    assert says in warning
    assert "s3cret" not in warning


def test_r48_known_keys_and_blank_ones_are_no_warning() -> None:
    known = {
        "timeout": 5, "verify": True, "proxies": {}, "api_key_header": "key", "allow_http": False,
        "portal_url": "https://portal.example", "vocabulary": {"states": {"succeeded": 3}}, "timezone": "UTC",
    }  # fmt: skip
    assert known.keys() == EXTRA.keys()
    assert given({**known, "blank": "", "null": None}).warnings == ()


def test_r48_what_is_refused_names_the_key_that_may_have_been_meant() -> None:
    with pytest.raises(InvalidInput, match=r"is plain http.* unknown key 'alow_http'.* mean 'allow_http'\?"):
        given({"alow_http": True}, host="http://api.example.com")


def test_r48_an_unknown_key_forges_no_line_and_is_not_shown_whole() -> None:
    (warning,) = given({"a\nERROR" + "x" * 1000: 1}).warnings
    assert "\n" not in warning
    assert len(warning) < 300
