"""What Airflow discovers, and what importing this package costs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager

from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.operators import ExecuteJobOperator
from airflow_provider_timextender.provider_info import get_provider_info

FORM_FROM_INFO = hasattr(ProvidersManager, "_load_ui_metadata")


def test_r35_provider_info_passes_airflows_schema() -> None:
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_r35_the_form_has_a_masked_key_and_hides_what_is_unused() -> None:
    (connection,) = get_provider_info()["connection-types"]
    behaviour = connection["ui-field-behaviour"]
    assert behaviour["relabeling"] == {"host": "Domain", "password": "API Key"}
    # Without a port, Airflow 3.3.2 cannot test a saved connection (apache/airflow#73298).
    assert set(behaviour["hidden-fields"]) == {"login", "schema"}
    assert behaviour["placeholders"]["port"] == "443"
    for name, field in connection["conn-fields"].items():
        assert "null" in field["schema"]["type"], f"{name} would be a required field"
    from_hook = TimeXtenderHook.get_ui_field_behaviour()
    assert from_hook == {"hidden_fields" if k == "hidden-fields" else k: v for k, v in behaviour.items()}
    schema = Path(airflow.__file__).parent / "customized_form_field_behaviours.schema.json"
    jsonschema.validate(from_hook, json.loads(schema.read_text()))


def _objects(info: dict[str, Any]) -> list[str]:
    return [info["connection-types"][0]["hook-class-name"], *info["extra-links"], *info["cli"]]


def test_every_name_in_provider_info_exists() -> None:
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info[kind]:
            assert all(find_spec(module) for module in entry["python-modules"])
    for path in _objects(info):
        module, name = path.rsplit(".", 1)
        assert hasattr(__import__(module, fromlist=[name]), name)
    links = {f"{type(k).__module__}.{type(k).__name__}" for k in ExecuteJobOperator.operator_extra_links}
    assert links == set(info["extra-links"])


def test_r39_names_that_users_store_or_type_are_frozen() -> None:
    assert TimeXtenderHook.conn_type == "timextender"
    assert TimeXtenderHook.default_conn_name == "timextender_default"
    assert ExecuteJobOperator(task_id="t").timextender_conn_id == "timextender_default"


HTTP = ("requests", "urllib3", "aiohttp", "httpx", "http.client", "http.cookiejar")
MODELS = "airflow.sdk, airflow.sdk.bases.sensor" if find_spec("airflow.sdk") else "airflow.models"
OURS = "airflow_provider_timextender"
PARSED = ("operators", "sensors", "hooks")
STEPS = {
    "pure": f"{OURS}.submission, {OURS}.jobs_api",
    "provider info": f"{OURS}.provider_info",
    "Airflow": MODELS,  # which every DAG has imported
    **{module: f"{OURS}.{module}" for module in PARSED},
}
"""What one interpreter imports, in turn."""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """Return which modules each of the steps has loaded that were not loaded before."""
    script = ["import json, sys", "seen, loaded = set(sys.modules), {}"]
    for step, modules in STEPS.items():
        script += [f"import {modules}", f"loaded[{step!r}] = sorted(set(sys.modules) - seen)"]
        script += ["seen.update(sys.modules)"]
    script += ["print('loaded:', json.dumps(loaded))"]
    command = [sys.executable, "-c", "\n".join(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("loaded: ")]
    return {step: set(modules) for step, modules in json.loads(line.removeprefix("loaded: ")).items()}


def test_parsing_a_dag_loads_no_http_library(loaded: dict[str, set[str]]) -> None:
    ours = set().union(*(modules for step, modules in loaded.items() if step != "Airflow"))
    assert {f"{OURS}.{module}" for module in PARSED} <= ours
    assert not [name for name in ours if name in HTTP or name.split(".")[0] in HTTP]


def test_discovering_the_provider_imports_no_airflow(loaded: dict[str, set[str]]) -> None:
    names = loaded["pure"] | loaded["provider info"]
    assert f"{OURS}.provider_info" in names
    assert not {name for name in names if name.split(".")[0] == "airflow"}


def test_the_pure_rooms_import_the_standard_library_only(loaded: dict[str, set[str]]) -> None:
    # zoneinfo loads `_sysconfigdata_...`, which has another name on each platform and stands in no list.
    own = {name.split(".")[0] for name in loaded["pure"] if not name.startswith("_sysconfigdata")}
    strangers = own - sys.stdlib_module_names
    assert strangers == {OURS}


def form(before: str = "") -> str:
    """Return what another process finds of the form: the names of the fields, and the label of the key."""
    script = (
        f"{before}\n"
        "from airflow.providers_manager import ProvidersManager as P; p = P(); "
        "prefix = 'extra__timextender__'; "
        "names = [k.removeprefix(prefix) for k in p.connection_form_widgets if k.startswith(prefix)]; "
        "print('form:', *names, p.field_behaviours['timextender']['relabeling']['password'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("form: ")]
    return line


@pytest.mark.skipif(not FORM_FROM_INFO, reason="before Airflow 3.2 the form comes from the hook")
def test_r35_airflow_knows_the_form_even_if_the_hook_cannot_be_imported() -> None:
    fields = get_provider_info()["connection-types"][0]["conn-fields"]
    line = form("import sys; sys.modules['airflow_provider_timextender.hooks'] = None")
    assert line == " ".join(["form:", *fields, "API Key"])


@pytest.mark.skipif(FORM_FROM_INFO, reason="from Airflow 3.2 on the form comes from the provider info")
def test_r35_airflow_knows_the_form_from_the_hook() -> None:
    assert form() == "form: API Key", "what else there is to set stands in the extra"
