"""The TimeXtender Jobs API, played over real HTTP, for demonstrations and for tests of your own DAGs.

It states the API's contract a second time and shares no code with the rest of the package, so that a wrong
path or name there cannot pass a test here.
"""

from airflow_provider_timextender.simulator.dialects import DIALECTS, Dialect
from airflow_provider_timextender.simulator.faults import Fault
from airflow_provider_timextender.simulator.replay import Recording
from airflow_provider_timextender.simulator.server import Request, Simulator
from airflow_provider_timextender.simulator.world import BLANK_TRIGGER_ID, Execution, Job

__all__ = [
    "BLANK_TRIGGER_ID",
    "DIALECTS",
    "Dialect",
    "Execution",
    "Fault",
    "Job",
    "Recording",
    "Request",
    "Simulator",
]
