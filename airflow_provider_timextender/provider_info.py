"""What Airflow discovers about this package. Read at every start of every component: imports nothing."""

from __future__ import annotations

from typing import Any

_PACKAGE = "airflow_provider_timextender"
_NAME = "TimeXtender"


def _field(label: str, kind: str, description: str, **schema: Any) -> dict[str, Any]:
    # Without "null" Airflow takes a field for a required one.
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}


EXTRA = {
    "timeout": _field(
        "Timeout",
        "integer",
        "Seconds to wait for a connection, and for each piece of an answer. Default 30.",
        minimum=1,
    ),
    "verify": _field("Verify TLS", "string", "true (default), false, or the path of a CA bundle."),
    "proxies": _field(
        "Proxies",
        "object",
        'For example {"https": "http://proxy.example:3128"}. Blank: HTTPS_PROXY and NO_PROXY count.',
    ),
    "api_key_header": _field(
        "API Key Header", "string", "Name of the request header that carries the API key. Default x-api-key."
    ),
    "portal_url": _field(
        "Portal URL", "string", "Where the task's link leads; {job_id} and {trigger_id} are filled in."
    ),
    "vocabulary": _field(
        "Vocabulary", "object", "Names and words of the API that differ from the defaults; see the guide."
    ),
    "timezone": _field(
        "Time Zone", "string", "Of times without an offset, such as Europe/Copenhagen. Default UTC (assumed)."
    ),
    "allow_http": _field(
        "Allow plain HTTP",
        "boolean",
        "Also send the API key without encryption to a host that is not this machine.",
    ),
}
"""The fields that a connection keeps in its extra, as the form shows them."""


def get_provider_info() -> dict[str, Any]:
    """Return the metadata that Airflow's ``provider_info.schema.json`` describes."""
    return {
        "package-name": "airflow-provider-timextender",
        "name": _NAME,
        "description": "Run TimeXtender jobs, wait for them and read their logs.",
        "integrations": [{"integration-name": _NAME, "tags": ["service"]}],
        "hooks": [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.hooks"]}],
        "operators": [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.operators"]}],
        "sensors": [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.sensors"]}],
        "triggers": [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.triggers"]}],
        "connection-types": [
            {
                "connection-type": "timextender",
                "hook-name": _NAME,
                "hook-class-name": f"{_PACKAGE}.hooks.TimeXtenderHook",
                "ui-field-behaviour": {
                    # The host may hold the port. Its field is shown all the same: Airflow 3.3.2 tests a saved
                    # connection without a port with port 0, which its own API refuses. Hide it when no such
                    # version is supported any more: https://github.com/apache/airflow/issues/73298
                    "hidden-fields": ["login", "schema"],
                    "relabeling": {"host": "Domain", "password": "API Key"},
                    "placeholders": {
                        "host": "Blank for api.timextender.com",
                        "port": "443",
                        "password": "An API key of your organisation",
                        "extra": '{"timeout": 30}',
                    },
                },
                "conn-fields": EXTRA,
            }
        ],
        "extra-links": [f"{_PACKAGE}.operators.TimeXtenderJobLink"],
        "cli": [f"{_PACKAGE}.cli.get_commands"],  # Airflow 3.2 and later; passed over before
    }
