"""What a soak does follows from its seed."""

import itertools
from dataclasses import replace

from faults.soak import PAUSES, SETUP, Step, eligible, plan
from faults.stage import Setup
from faults.table import Fault, Scene

from meshq.local.plan import Size

NAMES = ["a", "b", "c"]


async def nothing(scene: Scene) -> None:
    pass


def steps(seed: int, count: int = 30) -> list[Step]:
    return list(itertools.islice(plan(seed, NAMES), count))


def test_one_seed_gives_one_plan() -> None:
    assert steps(7) == steps(7)
    assert list(itertools.islice(plan(7, NAMES[::-1]), 30)) == steps(7)  # whatever order the table has
    assert steps(7) != steps(8)


def test_all_faults_come_before_one_comes_again() -> None:
    for start in range(0, 30, len(NAMES)):
        assert sorted(step.fault for step in steps(3)[start : start + len(NAMES)]) == NAMES
    assert all(PAUSES[0] <= step.pause <= PAUSES[1] for step in steps(3))


def test_what_needs_a_system_of_its_own_does_not_come() -> None:
    usual = Fault("usual", nothing)
    fitting = [usual, replace(usual, name="leases", setup=SETUP)]
    others = [
        replace(usual, name="alone", alone=True),
        replace(usual, name="no soak", soak=False),
        replace(usual, name="sized", setup=Setup(size=Size(workers=5))),
        replace(usual, name="exempt", exempt=frozenset({"limit"})),
        replace(usual, name="calls fail", calls_fail=True),
    ]
    found = eligible({fault.name: fault for fault in [*fitting, *others]})
    assert list(found.values()) == fitting
