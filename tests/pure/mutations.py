"""Rules that are taken out of the package in turn: the exploration has to notice each.

``python -m tests.pure.mutations`` prints which lives have noticed what. A mutation is a text of the package
and what stands in its place; the modules with the rules are made anew, and the package stays as it is.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from unittest import mock

import airflow_provider_timextender

from .explore import FAMILIES, describe, lived
from .virtual import Plan

PACKAGE = airflow_provider_timextender.__name__

MODULES = ("verdict", "submission", "shown", "life")
"""The modules with the rules of a life, each after those that it imports."""


class Mutation(NamedTuple):
    """A rule that is taken out.

    :ivar rule: what it says. :ivar families: which lives are to notice, by the functions that yield them.
    """

    rule: str
    module: str
    before: str
    after: str
    families: tuple[str, ...]


MUTATIONS = (
    # What is kept.
    Mutation(
        "the record is kept before the request",
        "life",
        "        self._keep(record)\n        try:\n            if alone:",
        "        self.record = record\n        try:\n            if alone:",
        ("deaths",),
    ),
    Mutation(
        "the receipt is kept",
        "life",
        '        self._keep(replace(record, stage="queued", trigger_id=receipt.trigger_id), or_go_on=True)\n',
        "",
        ("clears",),
    ),
    Mutation(
        "what a search has found is kept",
        "life",
        '            self._keep(replace(record, stage="queued", trigger_id=outcome.trigger_id), or_go_on=True)\n',
        "",
        ("cleared_with_faults",),
    ),
    Mutation(
        "that it is uncertain is kept",
        "life",
        '        self._keep(replace(record, stage="uncertain"), or_go_on=True)\n',
        "",
        ("cleared_with_faults",),
    ),
    Mutation(
        "to what a task has attached is kept",
        "life",
        '        self._keep(replace(record, stage="queued", trigger_id=trigger_id))\n        return trigger_id\n\n    # ---',
        "        return trigger_id\n\n    # ---",
        ("deaths",),
    ),
    Mutation(
        "who goes on with an execution keeps that",
        "life",
        '        self._keep(replace(record, stage="queued", trigger_id=trigger_id))\n        return trigger_id\n\n    async',
        "        return trigger_id\n\n    async",
        ("clears",),
    ),
    Mutation(
        "that the task has succeeded is kept",
        "life",
        '            self._keep(replace(self.record, stage="done"), or_go_on=True)\n',
        "            pass\n",
        ("clears",),
    ),
    # What is forgotten.
    Mutation(
        "a record is forgotten if the job is busy after all",
        "life",
        "        except TimeXtenderError:\n            self._forget()\n            raise\n        try:\n            receipt",
        "        except TimeXtenderError:\n            raise\n        try:\n            receipt",
        ("twins", "late_logs_of_two"),
    ),
    Mutation(
        "a record is forgotten if the request surely was not sent",
        "life",
        "                return str(error)\n            self._forget()\n            raise",
        "                return str(error)\n            raise",
        ("faults",),
    ),
    Mutation(
        "a record is forgotten if the search shows that nothing was queued",
        "life",
        "        if isinstance(outcome, NotQueued):\n            self._forget()\n",
        "        if isinstance(outcome, NotQueued):\n",
        ("faults",),
    ),
    Mutation(
        "a record is forgotten if the execution has failed or never started",
        "life",
        "        except JobError:\n            self._forget()\n            raise",
        "        except JobError:\n            raise",
        ("undisturbed",),
    ),
    Mutation(
        "so it is if the triggerer has seen that",
        "life",
        "                if isinstance(error, JobError):\n                    self._forget()\n",
        "",
        ("undisturbed",),
    ),
    # The stages.
    Mutation(
        "who is done returns the same, and is not queued again",
        "life",
        '        if record.stage == "done":\n            return None if cleared else record.trigger_id\n',
        '        if record.stage == "done":\n            return None\n',
        ("deaths",),
    ),
    Mutation(
        "who is done and cleared queues anew",
        "life",
        '        if record.stage == "done":\n            return None if cleared else record.trigger_id\n',
        '        if record.stage == "done":\n            return record.trigger_id\n',
        ("clears",),
    ),
    Mutation(
        "what is uncertain and cleared is queued anew",
        "life",
        '            if cleared:\n                return None\n            raise SubmissionUncertain(self._unknown(record, "An',
        '            raise SubmissionUncertain(self._unknown(record, "An',
        ("cleared_with_faults",),
    ),
    Mutation(
        "what was asked for is looked for",
        "life",
        "        trigger_id = record.trigger_id or await self._find(record)\n",
        "        trigger_id = record.trigger_id\n",
        ("deaths",),
    ),
    Mutation(
        "an execution that a search of this very try has found is followed to its end",
        "life",
        "        if record.number == tries.number:\n            return trigger_id",
        "        if False:\n            return trigger_id",
        ("deaths_with_faults", "faults"),
    ),
    Mutation(
        "only a failed execution is queued anew",
        "life",
        '        if isinstance(verdict, Failed):\n            self._warn(f"the execution of an',
        "        if isinstance(verdict, Succeeded):\n            return True\n"
        '        if isinstance(verdict, Failed):\n            self._warn(f"the execution of an',
        ("deaths",),
    ),
    Mutation(
        "a clear of what has succeeded is a wish to run it once more",
        "life",
        "        return cleared and (isinstance(verdict, Succeeded) or (gone and late))",
        "        return cleared and gone and late",
        ("clears",),
    ),
    Mutation(
        "it is none if nobody knew that it was queued",
        "life",
        'cleared=cleared and record.stage == "queued", late=late',
        "cleared=cleared, late=late",
        ("clears", "cleared_with_faults"),
    ),
    Mutation(
        "what decides about a second load is looked at here, as long as it takes",
        "life",
        "WaitTimeout(), here=True)",
        "WaitTimeout())",
        ("cleared_with_faults",),
    ),
    Mutation(
        "a clear is seen",
        "submission",
        "        return self.most != tries.most or (",
        "        return False and (",
        ("clears",),
    ),
    Mutation(
        "a clear is seen by the number of clears, too",
        "submission",
        "            self.clears != tries.clears and self.keeper < tries.first <= tries.number\n",
        "            False\n",
        ("clears",),
    ),
    Mutation(
        "a clear is told from the tries that follow it",
        "submission",
        "        return self.most != tries.most or (",
        "        return self.number != tries.number or (",
        ("deaths",),
    ),
    # Two workers of one task.
    Mutation(
        "a worker that is taken for dead sends no request",
        "life",
        "        if self._is_overtaken():\n            raise _Overtaken\n",
        "",
        ("taken_for_dead",),
    ),
    Mutation(
        "a worker that is taken for dead forgets nothing of another's",
        "life",
        "            if self._is_overtaken():\n                self.record = None\n",
        "            pass\n",
        ("dead_beside_the_living",),
    ),
    # Surely not sent.
    Mutation(
        "what may have been sent is not sent again",
        "life",
        "(isinstance(error, Unreachable) and error.sent)",
        "False",
        ("faults",),
    ),
    Mutation(
        "a server that has failed may have taken the request",
        "life",
        "    return isinstance(error, (ServerError, ContractError)) or",
        "    return isinstance(error, ContractError) or",
        ("faults",),
    ),
    Mutation(
        "an answer that is not understood may be a receipt",
        "life",
        "    return isinstance(error, (ServerError, ContractError)) or",
        "    return isinstance(error, ServerError) or",
        ("faults",),
    ),
    Mutation(
        "what surely was not sent is sent again",
        "life",
        "    return isinstance(error, Unreachable) and error.transient and not error.sent",
        "    return False",
        ("faults",),
    ),
    # Looking for a lost request.
    Mutation(
        "nothing was queued only if the job stays idle for the start timeout",
        "submission",
        "        if new or not run.has_waited_in_vain(now):",
        "        if new:",
        ("faults",),
    ),
    Mutation(
        "one execution is taken for ours only when the job has stayed idle",
        "submission",
        "        if new and run.is_settled(now):",
        "        if new:",
        ("deaths_with_faults", "faults"),
    ),
    Mutation(
        "of two executions none is taken for ours",
        "submission",
        "        if len(new) > 1 or (",
        "        if (",
        ("deaths", "deaths_with_faults", "cleared_with_faults"),
    ),
    Mutation(
        "what the log shows before the request is not ours",
        "submission",
        "            known=tuple(ids) if known else None,",
        "            known=() if known else None,",
        ("deaths", "faults"),
    ),
    Mutation(
        "what an earlier try has queued is not ours",
        "submission",
        "        known = {*(self.record.known or ()), *map(canonical, self.record.former)}",
        "        known = {*(self.record.known or ())}",
        ("deaths", "clears"),
    ),
    # Beside others.
    Mutation(
        "a job that is to be alone is looked at once more when its log has been read",
        "life",
        "            if alone:\n                await self._refuse_if_busy()\n        except",
        "            pass\n        except",
        ("late_logs_of_two",),
    ),
    # Without a memory.
    Mutation(
        "a retry without a memory looks at the job",
        "life",
        "            trigger_id = await self._look_before_a_blind_retry()\n",
        "            pass\n",
        ("deaths",),
    ),
    # The wait.
    Mutation(
        "an idle job says nothing about the execution",
        "verdict",
        "        return waiting\n    if not run.has_waited_in_vain(now):",
        "        return waiting\n    if False:",
        ("undisturbed",),
    ),
    Mutation(
        "after an unreachable minute the wait goes on",
        "life",
        "            if not (self.bears(error) and ends_elsewhere):\n                raise",
        "            raise",
        ("faults",),
    ),
    Mutation(
        "an event that a trigger tells ends the task",
        "life",
        "            if self.trigger_id is not None:\n                self._finish()\n                return self.trigger_id\n",
        "",
        ("undisturbed",),
    ),
    # What the task's log shows.
    Mutation(
        "what is shown is remembered",
        "shown",
        "        self._known = {shown.key: shown}\n        if self._keeper",
        "        if self._keeper",
        ("undisturbed",),
    ),
    Mutation(
        "what is shown is kept for the next process",
        "shown",
        "                await self._keeper.set(shown.to_dict())\n",
        "                pass\n",
        ("deaths",),
    ),
    Mutation(
        "what is kept is asked for",
        "shown",
        "self._known[kept.key] = max(self._known.get(kept.key, kept), kept, key=lambda one: one.count)",
        "pass",
        ("deaths",),
    ),
    Mutation(
        "the end shows what was not shown",
        "shown",
        "    if rest:\n        await _show(place, shown, missing, left_out)\n",
        "",
        ("undisturbed",),
    ),
    Mutation(
        "the end shows no more than what was not shown",
        "shown",
        "    missing = shown.missing(execution)[-RELAY_LIMIT:]\n",
        "    missing = execution.logs\n",
        ("undisturbed",),
    ),
)


def made_with(mutation: Mutation) -> Mapping[str, ModuleType]:
    """Return the modules with the rules, made without one of them.

    :raises ValueError: if the text is not there, or not only once: then this list is out of date.
    """
    made: dict[str, ModuleType] = {}
    with mock.patch.dict(sys.modules):
        for name in MODULES:
            spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
            assert spec is not None
            assert spec.origin is not None
            source = Path(spec.origin).read_text()
            if name == mutation.module:
                if source.count(mutation.before) != 1:
                    raise ValueError(f"{source.count(mutation.before)} times in {name}.py: {mutation.before}")
                source = source.replace(mutation.before, mutation.after)
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = made[name] = module
            exec(compile(source, spec.origin, "exec"), module.__dict__)
    return made


@dataclass(frozen=True)
class Caught:
    """What has noticed a mutation: which of how many lives, and what is bad about it."""

    lives: int
    plan: Plan | None
    said: str


def plans_for(families: Sequence[str]) -> Iterator[Plan]:
    """Yield lives of some families, in an order in which each kind comes soon."""
    by_name = {make.__name__: make for make, _ in FAMILIES}
    for name in families:
        plans = list(by_name[name]())
        random.Random(0).shuffle(plans)
        yield from plans[:MOST]


MOST = 8000
"""How many lives of a family have their chance to notice."""


def catch(mutation: Mutation) -> Caught:
    """Live until a life goes wrong without the rule."""
    made = made_with(mutation)
    lives = 0
    for plan in plans_for(mutation.families):
        lives += 1
        if bad := lived(plan, made)[1]:
            if lived(plan)[1]:
                raise AssertionError(f"It goes wrong with the rule as well: {describe(plan)}")
            return Caught(lives, plan, bad[0])
    return Caught(lives, None, "not noticed")


def main() -> int:
    """Run the command."""
    began, missed = time.monotonic(), 0
    with ProcessPoolExecutor(2) as pool:
        for mutation, caught in zip(MUTATIONS, pool.map(catch, MUTATIONS), strict=True):
            missed += caught.plan is None
            print(f"{mutation.rule}\n    noticed by life {caught.lives}: {caught.said[:110]}", flush=True)
            if caught.plan:
                print(f"    {describe(caught.plan)}")
    print(f"{len(MUTATIONS)} rules taken out, {missed} not noticed, {time.monotonic() - began:.0f} s")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
