"""Something breaks under load; whatever was accepted ends all the same, and is recorded once."""

import os
from pathlib import Path

import pytest
from faults import cases, report
from faults.play import play
from faults.systems import Systems
from faults.table import Fault
from faults.workload import FEW

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="session")]

FOLDER = Path(os.environ.get("MESHQ_FAULT_FOLDER", ".meshq/faults"))
REPORT = FOLDER / "report.json"


def wanted() -> list[Fault]:
    """The faults to play. Those with equal setups come together: they share a system in the short form."""
    faults = [fault for fault in cases.load().values() if fault.often or not FEW]
    setups = [fault.setup for fault in faults]
    return sorted(faults, key=lambda fault: (setups.index(fault.setup), fault.alone))


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in wanted()])
async def test_fault(fault: Fault, systems: Systems, seed: int, lines: list[report.Line]) -> None:
    system = await systems.open(fault)
    line = None
    try:
        line = await play(fault, system, seed, journal=FOLDER / f"{fault.name}.jsonl")
    finally:
        await systems.leave(fault, line is not None and line.kept)
    lines.append(line)
    report.write(lines, REPORT)  # each time, so that a run that is broken off leaves what it has found
    assert line.kept, f"{fault.name} with MESHQ_FAULT_SEED={seed}:\n{line.problems}"
