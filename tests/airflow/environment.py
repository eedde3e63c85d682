"""An Airflow of the tests' own, which whoever imports it first gets.

Airflow reads its configuration when it is first imported, so that this comes before any such import.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="airflow-timextender-tests-"))
EXAMPLE_DAGS = Path(__file__).parents[2] / "example_dags"
for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]
os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(EXAMPLE_DAGS),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{AIRFLOW_HOME}/airflow.db",
    AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS="False",
    # Only pytest keeps to itself what is printed; a campaign that is run as a command does not.
    AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG" if "PYTEST_VERSION" in os.environ else "ERROR",
)


def clean_up() -> None:
    """Remove it, when nothing uses it any more."""
    logging.raiseExceptions = False  # Airflow logs at exit, when pytest has closed the streams
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)
