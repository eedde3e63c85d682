"""Holds what a task said in the virtual world against what the virtual TimeXtender did.

It knows nothing of the package but the names of its errors.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

from . import virtual
from .virtual import Airflow, Ended, Plan, Universe, execution_of

BAD = ("wrong", "double", "lost")
"""What may not be: a falsehood, which a log line is that stands there twice or never, a second load without a
reason, a load of which nobody knows any more."""


def judged(universe: Universe) -> list[str]:
    """Return what is bad about how it went."""
    bad = [said for task in universe.tasks for said in (*doubles(task), *judge(task), *judge_lines(task))]
    return [*bad, "lost: it goes on for ever"] if universe.endless else bad


def loads_of(task: Airflow) -> list[Any]:
    """Return the executions that a task has asked for."""
    return [e for e in task.universe.world.executions if task.universe.owners.get(e.trigger_id) is task]


def doubles(task: Airflow) -> Iterator[str]:
    """Find loads for which there was no reason."""
    plan, loads = task.plan, loads_of(task)
    executions = {e.trigger_id: e for e in task.universe.world.executions}
    blind = not plan.lasts
    for former, latter in pairwise(() if is_misled(plan) else loads):
        if not (is_undone(task, former, latter) or is_wished(task, former, latter.queued)):
            yield f"double: {latter.trigger_id} after {former.trigger_id} ({former.outcome})"
    for load, (at, trigger_id) in itertools.product(loads, task.told):
        told = executions[trigger_id]
        cleared = any(at < moment <= load.queued for moment, _ in task.cleared)
        if not blind and at < load.queued and told.outcome == "succeeded" and not cleared:
            yield f"double: {load.trigger_id} was queued when the task had told of {trigger_id}"
    if (
        plan.if_running != "submit"
        and not plan.store_fails
        and {f for _, f in plan.faults} <= {"answered late"}
    ):
        for load, other in itertools.product(loads, executions.values()):
            # Two that ask in the same second are told apart by nobody.
            if other.outcome != "never starts" and other.queued + 1 < load.queued < other.ended:
                yield f"double: {load.trigger_id} was queued beside {other.trigger_id}"


def is_misled(plan: Plan) -> bool:
    """Tell whether a try without a memory cannot know better.

    All that it can go by is the job's last execution. It may be somebody else's, and a request may arrive
    after that try has looked.
    """
    return not plan.lasts and (plan.beside == "begins beside" or "arrives late" in dict(plan.faults).values())


def is_undone(task: Airflow, former: Any, latter: Any) -> bool:
    """Tell whether a load has come to nothing, so that another try may ask for one."""
    if former.outcome == "never starts":
        return True  # it leaves no trace: without its receipt it may be asked for again at once
    tries = task.universe.tries
    # A worker that was taken for dead may be the one that asks again, a few seconds before the next try.
    again = tries[former.trigger_id] < tries[latter.trigger_id] or task.plan.taken_for_dead is not None
    return former.outcome == "failed" and former.ended <= latter.queued and again


def is_wished(task: Airflow, load: Any, at: float) -> bool:
    """Tell whether somebody has cleared the task to have the load once more."""
    for moment, stage in task.cleared:
        # What nobody knew to be queued, nobody wants once more; of what was uncertain, people have decided.
        if load.queued < moment <= at and stage != "asked":
            return bool(load.ended <= at or stage == "uncertain" or not task.plan.wait)
    return False


def judge(task: Airflow) -> Iterator[str]:
    """Hold how a task ended against what TimeXtender did."""
    if len(task.ended) != 1 + (bool(task.cleared) and task.plan.clear == "at the end"):
        yield f"lost: the task has ended {len(task.ended)} times"
    yield from (f"wrong: {error}" for error in task.foreign)
    since = virtual.BEGINNING
    for ended in task.ended:
        yield from judge_red(task, ended, since) if ended.error else judge_green(task, ended, since)
        since = ended.at
    if [ended.error for ended in task.ended] == ["SubmissionUncertain"] * 2 and not task.plan.deaths:
        yield f"lost: cleared, and still uncertain: {task.ended[1].message}"


def judge_lines(task: Airflow) -> Iterator[str]:
    """Hold what the task's log shows of the executions' logs against these."""
    plan, shown = task.plan, Counter(task.log.lines)
    there: Counter[str] = Counter()
    for one in task.universe.world.executions:
        there += lines_of(one)
    # Of a line that is shown, nobody can know if the process dies then, or has no store, or works beside
    # another; and who clears a task sees all of it again.
    deaths = [task.universe.points[number - 1 :][:1] for number in plan.deaths]
    beside = plan.taken_for_dead is not None
    unknown = sum(beside or not plan.lasts or point == [virtual.LINES_SHOWN] for point in deaths)
    most = 1 + unknown + beside + len(task.cleared)
    if any(count > there[line] * most for line, count in shown.items()):
        yield f"wrong: lines are shown twice: {shown - there}"
    if task.ended and not task.ended[-1].error and plan.wait:
        execution = execution_of(task.universe, task.ended[-1].result)
        if execution is not None and (missing := lines_of(execution) - shown):
            yield f"wrong: lines are never shown: {missing}"


def lines_of(execution: Any) -> Counter[str]:
    """Return the lines of an execution as they are shown."""
    stamps = (datetime.fromtimestamp(line.at, timezone.utc) for line in execution.lines)
    texts = zip(stamps, execution.lines, strict=True)
    return Counter(f"[{stamp.isoformat(timespec='seconds')}] {line.message}" for stamp, line in texts)


def judge_green(task: Airflow, ended: Ended, since: float) -> Iterator[str]:
    """Judge a success."""
    plan = task.plan
    execution = execution_of(task.universe, ended.result)
    if ended.xcom != ended.result:
        yield f"wrong: the XCom is {ended.xcom} and the result {ended.result}"
    if execution is None:
        yield f"wrong: there is no execution {ended.result}"
        return
    loads = loads_of(task)
    if plan.wait and execution.outcome != "succeeded":
        yield f"wrong: green, and it {execution.outcome}"
    if plan.wait and execution.ended > ended.at:
        yield "wrong: green before its end"
    if execution not in loads and not may_be_anothers(
        plan, [e for e in loads if since <= e.queued <= ended.at]
    ):
        yield f"lost: green by another's execution {ended.result}"
    if execution in loads and execution is not loads_until(loads, ended.at)[-1] and not is_misled(plan):
        yield f"wrong: green by {ended.result}, which is not its last"
    # Who clears a task that has succeeded wants the load to run once more.
    if since > virtual.BEGINNING and not task_had_no_end_of_its_own(task) and execution.queued < since:
        yield f"lost: cleared, and green by {ended.result}, which was before that"


def loads_until(loads: Sequence[Any], at: float) -> list[Any]:
    return [load for load in loads if load.queued <= at]


def task_had_no_end_of_its_own(task: Airflow) -> bool:
    """Tell whether the task had not succeeded when it was cleared, so that it may go on with what it had."""
    return bool(task.ended[0].error) or task.plan.if_running == "attach"


def may_be_anothers(plan: Plan, loads: Sequence[Any] = ()) -> bool:
    """Tell whether a task may report somebody else's execution: attached, or taken for its own."""
    beside = plan.beside == "begins beside" or plan.twin is not None or is_shown_late(plan)
    has_none = all(load.outcome != "succeeded" for load in loads)
    return plan.if_running == "attach" or (beside and has_none and disturbed(plan))


def is_shown_late(plan: Plan) -> bool:
    """Tell whether the log shows what has ended before the request only after it, as if it had begun since.

    What is not in the log then, and no status tells of, nobody can know of.
    """
    return plan.beside == "busy before" and plan.log_at_end and plan.log_lag > virtual.INTERVAL


def judge_red(task: Airflow, ended: Ended, since: float) -> Iterator[str]:
    """Judge a failure."""
    plan = task.plan
    told = since > virtual.BEGINNING and not task.ended[0].error  # of what was green before the clear
    loads = [e for e in loads_of(task) if e.queued <= ended.at and not (told and e.queued < since)]
    last = loads[-1] if loads else None
    if ended.error == "JobFailed":
        others = task.universe.world.executions if may_be_anothers(plan, loads) else loads
        if not any(e.outcome == "failed" and e.ended <= ended.at for e in others):
            yield f"wrong: JobFailed, and none has: {ended.message}"
        elif last is not None and last.outcome != "failed" and not may_be_anothers(plan, loads):
            yield f"wrong: JobFailed, and the last {last.outcome}"
    elif ended.error == "JobNeverStarted":
        if last is None or last.outcome != "never starts":
            yield f"wrong: JobNeverStarted, and it {last.outcome if last else 'was not asked for'}"
    elif not MAY_END_WITH.get(ended.error, never)(task, ended):
        yield f"lost: {ended.error}: {ended.message}"
    elif ended.error not in ("died", "JobBusy") and hides(ended.message, last):
        yield f"lost: {ended.error} tells nothing of {last}: {ended.message}"


def hides(message: str, load: Any) -> bool:
    """Tell whether an error does not say of a load that has succeeded, or will, that it may run."""
    if load is None or load.outcome != "succeeded":
        return False
    return not any(words in message for words in (load.trigger_id, "may have", "not known whether"))


# --- which errors may end a task that say nothing about what became of its load ---


def never(task: Airflow, ended: Ended) -> bool:
    return False


def tries_are_used_up(task: Airflow, ended: Ended) -> bool:
    plan = task.plan
    used = len(plan.deaths) + task.errors + (plan.taken_for_dead is not None)
    return used >= min(plan.retries, plan.after_clear)


def is_busy(task: Airflow, ended: Ended) -> bool:
    late = 1 + (virtual.LATE + 15 if task.plan.faults else 0)  # and no answer is later
    busy = any(e.queued <= ended.at <= e.ended + late for e in task.universe.world.executions)
    return busy and task.plan.if_running in ("fail", "attach")


def was_refused(task: Airflow, ended: Ended) -> bool:
    return any(fault in ("400", "401", "404") for _, fault in task.plan.faults)


def was_limited_at_the_last_try(task: Airflow, ended: Ended) -> bool:
    return task.plan.retries == 1 and any(fault == "429" for _, fault in task.plan.faults)


def found_no_store_at_the_last_try(task: Airflow, ended: Ended) -> bool:
    return task.plan.store_fails is not None and task.plan.retries == 1


def takes_too_long(task: Airflow, ended: Ended) -> bool:
    last = loads_of(task)[-1]
    shown = float(last.ended) + task.plan.log_lag + virtual.INTERVAL / 2
    return shown > float(last.queued) + virtual.TIMEOUT


def leaves_no_trace(task: Airflow, ended: Ended) -> bool:
    # Nobody has seen whether what left no trace has run.
    plan = task.plan
    return "never starts" in plan.outcomes and (disturbed(plan) or plan.beside != "nothing")


def cannot_be_told(task: Airflow, ended: Ended) -> bool:
    """Tell whether a task may be uncertain about its request."""
    plan = task.plan
    if not plan.lasts:
        return bool(plan.deaths or plan.faults or "failed" in plan.outcomes)
    if len(task.ended) > 1 and ended is task.ended[1] and not task.ended[0].error:
        return any(task.ended[0].at < at < ended.at for at in task.asked)
    if plan.clear is not None and (plan.deaths or plan.mode != "worker"):
        return True  # after so long, what has begun since may be anybody's
    if plan.taken_for_dead is not None and plan.deaths:
        return True  # both workers may have asked, one after the other's has failed
    others = plan.beside != "nothing" or plan.twin is not None
    return disturbed(plan) and (others or bool(plan.faults))


MAY_END_WITH: Mapping[str, Callable[[Airflow, Ended], bool]] = {
    "died": tries_are_used_up,
    "JobBusy": is_busy,
    "Refused": was_refused,
    "RateLimited": was_limited_at_the_last_try,
    "OSError": found_no_store_at_the_last_try,
    "WaitTimeout": takes_too_long,
    "ContractError": leaves_no_trace,
    "SubmissionUncertain": cannot_be_told,
}
"""The errors by name, and what has to be so for each."""


def disturbed(plan: Plan) -> bool:
    return bool(plan.deaths or plan.faults or plan.clear or plan.taken_for_dead or plan.store_fails)
