"""The examples of the Python guide: they compile, import what exists, and register what they say."""

import re
from pathlib import Path
from typing import Any

import pytest

from meshq.worker import TaskRegistry, Worker

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def without_running(example: str) -> str:
    """The example up to where it would talk to a server."""
    return re.split(r"^(?:asyncio\.run|with SyncClient)", example, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_programs(example: str) -> None:
    compile(example, str(GUIDE), "exec")
    names: dict[str, Any] = {"__name__": "example"}
    exec(without_running(example), names)
    registries = [value for value in names.values() if isinstance(value, TaskRegistry)]
    registries += [value.registry for value in names.values() if isinstance(value, Worker)]
    assert all(registry.types for registry in registries)


def test_the_guide_names_the_built_in_tasks() -> None:
    from meshq.tasks import registry

    text = GUIDE.read_text()
    assert all(f"`{name}`" in text for name in registry.types)
