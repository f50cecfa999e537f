"""Starting what needs a server that is not there yet."""

import pytest

from meshq.contract.errors import InternalError, MeshqError, Unavailable
from meshq.mesh.process import StartupError, start_when_there


async def test_a_start_is_tried_until_the_server_is_there() -> None:
    answers: list[MeshqError | None] = [Unavailable("away"), Unavailable("away"), None]

    async def start() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    await start_when_there("the ledger", start)
    assert answers == []


@pytest.mark.parametrize(
    ("error", "seconds"), [(InternalError("too new"), 60.0), (Unavailable("too new"), -1.0)]
)
async def test_a_start_that_cannot_succeed_ends_with_its_reason(error: MeshqError, seconds: float) -> None:
    async def start() -> None:
        raise error

    with pytest.raises(StartupError, match="too new"):
        await start_when_there("the ledger", start, seconds)
