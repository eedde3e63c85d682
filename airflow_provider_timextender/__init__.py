"""Apache Airflow provider for TimeXtender jobs."""

__version__ = "0.1.0"
