"""Every death of a task, pairs of deaths, and deaths with faults: lived in a virtual world, and judged.

``python -m tests.pure.explore`` prints how many lives of which kind were lived and how they ended;
``--show 'Plan(...)'`` lives one and prints all of it.

How they are judged stands in :mod:`.judging`.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, get_args

from . import virtual
from .judging import BAD, judged
from .virtual import AS_IT_IS, Fault, Made, Mode, Plan, Universe

# --- what is lived ---

MODES: Sequence[Mode] = get_args(Mode)
FAULTS: Sequence[Fault] = get_args(Fault)


def points_of(plan: Plan) -> Sequence[str]:
    """Return the points of a life that nothing else disturbs."""
    return lived(plan)[0].points


def at_each_point(plan: Plan) -> Iterator[Plan]:
    """Yield the plan with each death, one at a time."""
    for number in range(1, len(points_of(plan)) + 1):
        yield replace(plan, deaths=(number,))


def undisturbed() -> Iterator[Plan]:
    """Yield each kind of life without a death."""
    courses: list[dict[str, Any]] = [
        {},
        {"outcomes": ("failed", "succeeded")},
        {"outcomes": ("never starts", "succeeded")},
        {"outcomes": ("failed",), "retries": 1},
        {"log_lag": 3.0},
        {"log_at_end": True},
        {"log_lag": 12.0, "log_at_end": True},
        {"wait": False},
        {"lasts": False},
        {"lasts": False, "outcomes": ("failed", "succeeded")},
    ]
    for mode, if_running, beside, course in itertools.product(
        MODES, get_args(virtual.IfRunning), get_args(virtual.Beside), courses
    ):
        if mode == "ends in triggerer" and not course.get("lasts", True):
            continue  # both came with Airflow 3.3
        yield Plan("undisturbed", mode, if_running, beside=beside, **course)


def deaths() -> Iterator[Plan]:
    """Yield each death of each kind of life."""
    for plan in undisturbed():
        yield from at_each_point(replace(plan, family="a death"))


def pairs() -> Iterator[Plan]:
    """Yield pairs of deaths; the second is counted in a life in which there is the first."""
    for plan in undisturbed():
        if plan.beside in ("nothing", "busy before") and plan.lasts:
            for first in at_each_point(replace(plan, family="two deaths")):
                count = len(points_of(first))
                for second in range(first.deaths[0] + 1, count + 1):
                    yield replace(first, deaths=(*first.deaths, second))


def faults() -> Iterator[Plan]:
    """Yield each fault of each request."""
    for plan in undisturbed():
        if plan.beside in ("nothing", "busy before"):
            universe, _ = lived(plan)
            for number, fault in itertools.product(range(1, universe.requests + 1), FAULTS):
                yield replace(plan, family="a fault", faults=((number, fault),))


def deaths_with_faults() -> Iterator[Plan]:
    """Yield each death with each fault of the request for the job."""
    for plan in undisturbed():
        if plan.beside in ("nothing", "busy before"):
            for fault in FAULTS:
                yield from at_each_point(replace(plan, family="death x fault", faults=(("POST", fault),)))


def deaths_with_lost_reads() -> Iterator[Plan]:
    """Yield each death with each fault of each read."""
    for plan in undisturbed():
        if plan.beside == "nothing" and plan.lasts:
            universe, _ = lived(plan)
            lost: tuple[Fault, ...] = ("503", "html", "404")
            for number, fault in itertools.product(range(1, universe.requests + 1), lost):
                yield from at_each_point(replace(plan, family="death x lost read", faults=((number, fault),)))


def stores() -> Iterator[Plan]:
    """Yield each failure of the task state store, alone and with each death."""
    for plan in undisturbed():
        if plan.beside == "nothing" and plan.lasts:
            universe, _ = lived(plan)
            for number in range(1, universe.accesses + 3):
                failing = replace(plan, family="store fails", store_fails=number)
                yield failing
                yield from at_each_point(failing)


def clears() -> Iterator[Plan]:
    """Yield clears, at the end and at each point, also with fewer retries afterwards, and deaths then."""
    for plan in undisturbed():
        if plan.beside in ("nothing", "busy before") and plan.lasts:
            for retries in (5, 4, 1):  # with 4 a clear leaves as many tries as there were
                cleared = replace(plan, family="cleared at the end", clear="at the end", after_clear=retries)
                yield cleared
                yield from at_each_point(cleared)
            for number in range(1, len(points_of(plan)) + 1):
                cleared = replace(plan, family="cleared at a point", clear=number)
                yield cleared
                again = replace(cleared, after_clear=1)
                yield from (replace(again, deaths=(number + after,)) for after in (1, 4, 8, 12))


def cleared_with_faults() -> Iterator[Plan]:
    """Yield clears whose next try is refused an answer, or where it was uncertain what to do."""
    for plan in undisturbed():
        if plan.beside != "by hand" and plan.lasts:
            cleared = replace(plan, family="cleared x fault", clear="at the end")
            universe, _ = lived(cleared)
            refusals: tuple[Fault, ...] = ("401", "404", "lost")
            for number, fault in itertools.product(range(1, universe.requests + 1), refusals):
                yield replace(cleared, faults=((number, fault),))
            lost = replace(cleared, faults=(("POST", "lost, taken"),))
            yield lost
            yield from at_each_point(lost)


def taken_for_dead() -> Iterator[Plan]:
    """Yield workers that Airflow takes for dead at each point, and that work on beside the next try."""
    for plan in undisturbed():
        if plan.beside in ("nothing", "busy before") and plan.lasts:
            for number in range(1, len(points_of(plan)) + 1):
                yield replace(plan, family="taken for dead", taken_for_dead=number)


def dead_beside_the_living() -> Iterator[Plan]:
    """Yield such workers, and a death of whoever works then."""
    for plan in taken_for_dead():
        chance = random.Random(repr(plan))
        # Which of the two workers hears first of the end depends on when that is.
        two = replace(plan, family="taken for dead, death", duration=round(chance.uniform(30, 42), 1))
        for death in chance.sample(range(1, len(points_of(two)) + 1), 5):
            yield replace(two, deaths=(death,))


def dialects() -> Iterator[Plan]:
    """Yield each death in other dialects of the API."""
    for plan, dialect in itertools.product(undisturbed(), ("camel", "numeric", *virtual.SAMPLE)):
        if plan.lasts and plan.if_running in ("submit", "wait") and plan.beside in ("nothing", "busy before"):
            yield from at_each_point(replace(plan, family="death x dialect", dialect=dialect))


def twins() -> Iterator[Plan]:
    """Yield two tasks that want the same job, the second some seconds later, with each death of the first."""
    for plan in undisturbed():
        if plan.beside == "nothing" and plan.lasts and "never starts" not in plan.outcomes:
            for after in (0.0, 0.3, 3.0, 20.0, 60.0):
                two = replace(plan, family="two tasks", twin=after)
                yield two
                yield from at_each_point(two)


def late_logs_of_two() -> Iterator[Plan]:
    """Yield two tasks that want the same job; one answer comes after the second has begun."""
    for plan in undisturbed():
        if plan.beside == "nothing" and plan.lasts and plan.if_running != "submit":
            for number, after in itertools.product(range(1, 4), (3.0, 10.0)):
                one = replace(plan, family="two tasks, one late", twin=after)
                yield replace(one, faults=((number, "answered late"),))


def long_loads() -> Iterator[Plan]:
    """Yield loads that take about as long as the task waits for them."""
    for mode, lag, over in itertools.product(MODES, (0.0, 3.0), range(-20, 8)):
        yield Plan("a long load", mode, duration=virtual.TIMEOUT + over, log_lag=lag)


FAMILIES: Sequence[tuple[Callable[[], Iterator[Plan]], float]] = (
    (undisturbed, 1.0),
    (deaths, 0.4),
    (pairs, 0.01),
    (faults, 0.25),
    (deaths_with_faults, 0.06),
    (deaths_with_lost_reads, 0.01),
    (stores, 0.1),
    (clears, 0.12),
    (cleared_with_faults, 0.12),
    (taken_for_dead, 0.5),
    (dead_beside_the_living, 0.05),
    (dialects, 0.2),
    (twins, 0.15),
    (late_logs_of_two, 1.0),
    (long_loads, 1.0),
)
"""The kinds of lives, and which part of each is lived, unless another part is asked for."""

# --- what comes of it ---


def lived(plan: Plan, made: Made = AS_IT_IS) -> tuple[Universe, list[str]]:
    """Live a life, and judge it."""
    universe = Universe(plan, made)
    universe.run()
    return universe, judged(universe)


@dataclass
class Explored:
    """What came of many lives."""

    ends: dict[str, Counter[str]]
    bad: list[tuple[Plan, str]]

    @property
    def lives(self) -> int:
        return sum(sum(ends.values()) for ends in self.ends.values())


def explore(plans: Iterable[Plan], made: Made = AS_IT_IS) -> Explored:
    """Live and judge."""
    explored = Explored({}, [])
    for plan in plans:
        universe, bad = lived(plan, made)
        end = universe.task.ended[-1].error if universe.task.ended else "none"
        explored.ends.setdefault(plan.family, Counter())[end or "success"] += 1
        explored.bad += [(plan, said) for said in bad]
    return explored


def sample(part: float, seed: int = 0, family: str | None = None) -> Iterator[Plan]:
    """Yield a part of each family, or of one; the same one every time."""
    for make, share in FAMILIES:
        if family in (None, make.__name__):
            chance = random.Random(seed)
            yield from (plan for plan in make() if chance.random() < share * part)


def explore_beside(number: int, jobs: int, part: float, seed: int, family: str | None) -> Explored:
    """Live what falls to one of some processes."""
    return explore(itertools.islice(sample(part, seed, family), number, None, jobs))


def table(explored: Explored) -> str:
    """Return the figures."""
    kinds = Counter((plan.family, said.split(":")[0]) for plan, said in explored.bad)
    rows = dict(explored.ends)
    rows["all"] = sum(rows.values(), Counter())
    lines = [f"{'lives':>8}  {'':20}{'wrong':>7}{'double':>7}{'lost':>7}   how they ended"]
    for family, ends in rows.items():
        bad = [sum(n for (of, k), n in kinds.items() if k == kind and family in (of, "all")) for kind in BAD]
        counts = "".join(f"{count:7}" for count in bad)
        how = ", ".join(f"{end} {count}" for end, count in ends.most_common())
        lines.append(f"{sum(ends.values()):8}  {family:20}{counts}   {how}")
    return "\n".join(lines)


def describe(plan: Plan) -> str:
    """Return a plan as the call that makes it, without what is as usual."""
    usual = Plan("")
    given = ((f.name, getattr(plan, f.name)) for f in fields(Plan) if f.name != "family")
    unusual = [f"{name}={value!r}" for name, value in given if value != getattr(usual, name)]
    return f"Plan({', '.join([repr(plan.family), *unusual])})"


def examples(bad: Iterable[tuple[Plan, str]]) -> Iterator[tuple[Plan, str]]:
    """Yield the first few bad lives of each kind."""
    seen: Counter[tuple[str, str]] = Counter()
    for plan, said in bad:
        kind = (plan.family, said[:20])
        seen[kind] += 1
        if seen[kind] <= 3:
            yield plan, said


def show(plan: Plan) -> None:
    """Print all of a life."""
    universe, bad = lived(plan)
    print(describe(plan))
    for number, name in enumerate(universe.points, 1):
        print(f"{number:5} {name}{'  DIES' if number in plan.deaths else ''}")
    print(*universe.world.executions, sep="\n")
    for task in universe.tasks:
        print(task.tries, task.stored, *task.log.warnings, *task.ended, sep="\n")
    print(*bad or ["Nothing is bad."], sep="\n")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.pure.explore", description=__doc__)
    parser.add_argument("--part", type=float, default=1.0, help="which part of the exploration")
    parser.add_argument("--seed", type=int, default=0, help="which sample of it")
    parser.add_argument("--show", metavar="PLAN", help="show this life")
    parser.add_argument("--family", help="this one only")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    if arguments.show:
        show(eval(arguments.show, {"Plan": Plan}))  # typed by whoever reads a report
        return 0
    began = time.monotonic()
    explored = Explored({}, [])
    with ProcessPoolExecutor(arguments.jobs) as pool:
        own = partial(
            explore_beside,
            jobs=arguments.jobs,
            part=arguments.part,
            seed=arguments.seed,
            family=arguments.family,
        )
        for one in pool.map(own, range(arguments.jobs)):
            explored.bad += one.bad
            for family, ends in one.ends.items():
                explored.ends.setdefault(family, Counter()).update(ends)
    print(table(explored))
    for plan, said in examples(explored.bad):
        print(f"{describe(plan)}\n    {said[:300]}")
    took = time.monotonic() - began
    print(f"{explored.lives} lives in {took:.0f} s, {explored.lives / took:.0f} a second")
    return int(bool(explored.bad))


if __name__ == "__main__":
    sys.exit(main())
