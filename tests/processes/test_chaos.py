"""A few random lives; ``make chaos`` lives more of them."""

from __future__ import annotations

import pytest

from ..airflow.running import SHARES
from .chaos import live_all, table
from .lives import Nursery


@pytest.mark.skipif(not SHARES, reason="before Airflow 3.3 nothing of a task survives its process")
def test_r03_r05_r06_r16_whatever_happens_the_load_runs_once_and_nothing_false_is_said(
    nursery: Nursery,
) -> None:
    lives = live_all(nursery, range(40), jobs=12)
    assert not any(lived.wrong for lived in lives), table(lives)
