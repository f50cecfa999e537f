"""Systems for fault runs, and the report at their end."""

import os
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from faults import report
from faults.systems import Systems
from faults.workload import SHORT

SEED = os.environ.get("MESHQ_FAULT_SEED", "")
_lines = pytest.StashKey[list[report.Line]]()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def systems() -> AsyncIterator[Systems]:
    made = Systems()
    yield made
    await made.close()


@pytest.fixture
def seed() -> int:
    """MESHQ_FAULT_SEED, or 1 in the short form, or any: the report says which it was."""
    if SEED:
        return int(SEED)
    return 1 if SHORT else random.randrange(1, 1_000_000)


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> list[report.Line]:
    """The lines of the report."""
    return request.config.stash.setdefault(_lines, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if made := config.stash.get(_lines, []):
        terminalreporter.write_line("")
        terminalreporter.write_line(report.printed(made))
