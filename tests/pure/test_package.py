"""The package as a distribution: how it is found, what it needs, and where what stands."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import airflow_provider_timextender
from airflow_provider_timextender.provider_info import get_provider_info

PACKAGE = Path(airflow_provider_timextender.__file__).parent
DISTRIBUTION = "airflow-provider-timextender"


def test_airflow_finds_the_provider_by_its_entry_point() -> None:
    (entry,) = [
        e for e in entry_points(group="apache_airflow_provider") if e.dist and e.dist.name == DISTRIBUTION
    ]
    assert entry.load() is get_provider_info
    assert get_provider_info()["package-name"] == DISTRIBUTION
    assert version(DISTRIBUTION) == airflow_provider_timextender.__version__


def test_json_names_and_paths_of_the_api_stand_in_one_place() -> None:
    names = (
        'TriggerId|JobId|StartTime|EndTime|ExecutionLogs|ErrorMessage|LogEntries|JobStatus"|Timestamp'
        '|/public/|"State"|"Severity"|"Logs"'
    )
    found = {
        file.relative_to(PACKAGE).parts[0]
        for file in PACKAGE.rglob("*.py")
        if re.search(names, file.read_text())
    }
    assert found == {"jobs_api.py", "vocabulary.py", "simulator"}


def test_what_is_imported_is_declared() -> None:
    declared, of_extras = (
        {re.split(r"[<>=\[; ]", r)[0] for r in requires(DISTRIBUTION) or [] if ("extra ==" in r) is is_extra}
        for is_extra in (False, True)
    )
    common = "apache-airflow-providers-common-compat"
    assert declared == {"apache-airflow", common, "ijson", "requests", "urllib3"}
    assert of_extras == {"aiohttp", "apache-airflow-providers-common-sql", "pyarrow", "sqlalchemy"}


def test_only_the_simulator_needs_its_extra_and_says_how_to_get_it() -> None:
    script = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "import airflow_provider_timextender.carrier, airflow_provider_timextender.worlds\n"
        "print('so far'); import airflow_provider_timextender.simulator"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "so far\n"
    assert "ImportError: The simulator needs aiohttp: pip install " in done.stderr
    assert f"'{DISTRIBUTION}[simulator]'" in done.stderr
