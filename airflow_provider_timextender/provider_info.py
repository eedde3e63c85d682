"""What Airflow discovers about this package. Read at every start of every component: imports nothing."""

from __future__ import annotations

from typing import Any

_PACKAGE = "airflow_provider_timextender"
_NAME = "TimeXtender"


def _extra(label: str, description: str, *types: str, **schema: Any) -> dict[str, Any]:
    # Without "null" Airflow takes a field for a required one.
    return {
        "label": label,
        "description": description,
        "schema": {"type": [*types, "null"], **schema},
    }


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
                    "hidden-fields": ["login", "schema", "port"],
                    "relabeling": {"host": "Domain", "password": "API Key"},
                    "placeholders": {
                        "host": "Blank for api.timextender.com",
                        "password": "An API key of your organisation",
                        "extra": '{"timeout": 30}',
                    },
                },
                "conn-fields": {
                    "timeout": _extra(
                        "Timeout",
                        "Seconds to wait for a connection, and for each piece of an answer. Default 30.",
                        "integer",
                        minimum=1,
                    ),
                    "verify": _extra(
                        "Verify TLS",
                        "true (default), false, or the path of a CA bundle.",
                        "string",
                    ),
                    "proxies": _extra(
                        "Proxies",
                        'For example {"https": "http://proxy.example:3128"}. '
                        "Blank: HTTPS_PROXY and NO_PROXY count.",
                        "object",
                    ),
                    "api_key_header": _extra(
                        "API Key Header",
                        "Name of the request header that carries the API key. Default x-api-key.",
                        "string",
                    ),
                    "portal_url": _extra(
                        "Portal URL",
                        "Where the task's link leads; {job_id} and {trigger_id} are filled in.",
                        "string",
                    ),
                    "vocabulary": _extra(
                        "Vocabulary",
                        "Names and words of the API that differ from the defaults; see the guide.",
                        "object",
                    ),
                    "timezone": _extra(
                        "Time Zone",
                        "Of times without an offset, such as Europe/Copenhagen. Default UTC (assumed).",
                        "string",
                    ),
                    "allow_http": _extra(
                        "Allow plain HTTP",
                        "Also send the API key without encryption to a host that is not this machine.",
                        "boolean",
                    ),
                },
            }
        ],
        "extra-links": [f"{_PACKAGE}.operators.TimeXtenderJobLink"],
    }
