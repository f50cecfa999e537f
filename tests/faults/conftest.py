"""A system for each fault test."""

from collections.abc import AsyncIterator

import pytest
from faults.load import Load

from meshq.client import Client
from meshq.local.system import System


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """A whole system of its own for each test, so that one fault does not hide another."""
    async with System(ephemeral=True, port=0) as system:
        yield system


@pytest.fixture
async def load(system: System) -> AsyncIterator[Load]:
    """A load on the system's edge."""
    async with Client(system.edge, timeout=60) as client:
        yield Load(system, client)
