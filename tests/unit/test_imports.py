"""Who may import whom, read from the source itself.

The rules are data: for each part of `meshq` the other parts that it may import, and for each driver
the modules that may import it. Every import statement counts, also within a function or below
TYPE_CHECKING. The last tests break each rule on purpose, so that a rule that sees nothing is noticed.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = [
    REPOSITORY / folder
    for folder in tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "dev-mode-dirs"
    ]
]

GENERATED = {"v1", "internal"}
SHARED = {"contract", *GENERATED}
CLIENT_SIDE = {"client", "worker", "cli", "tasks", "bench"}
COMPONENTS = {"registry", "management", "execution", "gateway"}

MAY_IMPORT: Mapping[str, set[str]] = {
    "v1": set(),
    "internal": {"v1"},
    "contract": GENERATED,
    "mesh": SHARED,
    # What runs outside of the mesh speaks the public contract only.
    **{part: {"contract", "v1"} | CLIENT_SIDE for part in CLIENT_SIDE},
    **{part: {"mesh"} | SHARED for part in COMPONENTS},
    # It starts the components as processes, and asks them as a client.
    "local": {"contract", "v1"} | CLIENT_SIDE,
}
"""The other parts that a part may import."""

MAY_ALSO_IMPORT: Mapping[str, set[str]] = {
    # It plays on the stores what the components' own code makes for them.
    r"local\.bench\.limit(\..+)?": {"mesh", "management", "execution"},
    # It reads on the shards what execution keeps there.
    r"local\.bench\.shards": {"execution"},
}
"""Further parts for some modules, by what follows `meshq.`."""

MAY_DRIVE: Mapping[str, str] = {
    # The local system makes the databases of the PostgreSQL that it starts, and asks it how long things take.
    r"psycopg(_pool)?": (
        r"((mesh|management|execution)\.postgres(\..+)?|local\.(servers|(backup|bench)\.databases?))"
    ),
    r"(redis|hiredis|xxhash)": r"execution\.ring(\..+)?",
    r"pyetcd": r"mesh\.etcd",
    r"aiohttp": r"gateway\..+",
    r"(typer|rich)": r"(cli|local)\..+",
    r"(envoy|xds|udpa)": r"(registry|gateway)\..+",
    r"(pydantic|pydantic_settings|structlog|prometheus_client|uvloop)": (
        r"(mesh|worker|registry|management|execution|gateway|local)(\..+)?"
    ),
}
"""The modules, by what follows `meshq.`, that may import a library."""

SEES_GENERATED = r"(servicers?|conversion|app|stubs|console\.sources)(\..+)?"
"""The modules of a component that may import generated code: those that serve and those that call."""

Graph = dict[str, set[str]]
Check = Callable[[Graph], list[str]]


def modules(roots: list[Path]) -> Iterator[tuple[str, Path]]:
    """The name and file of each module below `meshq`, in all roots."""
    for root in roots:
        for path in sorted((root / "meshq").rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path: Path, module: str) -> Iterator[str]:
    """The names that a file imports; `from a import b` counts as `a.b`."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph(roots: list[Path]) -> Graph:
    """Each module and what it imports."""
    return {module: set(imported(path, module)) for module, path in modules(roots)}


def part_of(name: str) -> str | None:
    """The part of meshq that a module belongs to; None for a module of others."""
    top, _, rest = name.partition(".")
    return rest.partition(".")[0] if top == "meshq" else None


def may_import(module: str, own: str) -> set[str]:
    """The parts that a module may import, its own included."""
    path = module.removeprefix("meshq.")
    further = (parts for pattern, parts in MAY_ALSO_IMPORT.items() if re.fullmatch(pattern, path))
    return MAY_IMPORT.get(own, set()).union({own}, *further)


def broken_parts(found: Graph) -> list[str]:
    """Imports of a part that is out of bounds."""
    return [
        f"{module} imports {name}"
        for module, names in found.items()
        for name in sorted(names)
        if (own := part_of(module)) is not None
        and (other := part_of(name)) is not None
        and other not in may_import(module, own)
    ]


def broken_drivers(found: Graph) -> list[str]:
    """Imports of a library where it has no business."""
    return [
        f"{module} imports {name}"
        for module, names in found.items()
        for name in sorted(names)
        for library, allowed in MAY_DRIVE.items()
        if re.fullmatch(library, name.partition(".")[0])
        and not re.fullmatch(allowed, module.removeprefix("meshq."))
    ]


def broken_models(found: Graph) -> list[str]:
    """Imports of generated code in a component outside of its edges."""
    return [
        f"{module} imports {name}"
        for module, names in found.items()
        if part_of(module) in COMPONENTS and not re.fullmatch(SEES_GENERATED, module.split(".", 2)[-1])
        for name in sorted(names)
        if part_of(name) in GENERATED
    ]


@pytest.fixture(scope="module")
def real() -> Graph:
    return graph(ROOTS)


def test_all_parts_are_known(real: Graph) -> None:
    parts = {part_of(module) for module in real}
    assert parts <= set(MAY_IMPORT), "a new part needs a rule"
    assert parts == set(MAY_IMPORT), "a part is missing"


def test_parts_import_only_what_they_may(real: Graph) -> None:
    assert broken_parts(real) == []


def test_only_stores_import_drivers(real: Graph) -> None:
    assert broken_drivers(real) == []


def test_only_the_edges_of_a_component_import_generated_code(real: Graph) -> None:
    assert broken_models(real) == []


def test_the_namespace_has_no_package_file() -> None:
    # One such file hides what all other roots hold.
    assert [root for root in ROOTS if (root / "meshq" / "__init__.py").exists()] == []
    assert not (ROOTS[0] / "meshq" / "internal" / "__init__.py").exists()


def test_every_part_is_typed(real: Graph) -> None:
    folders = {"internal/v1" if part == "internal" else str(part) for part in map(part_of, real)}
    untyped = [
        folder
        for folder in sorted(folders)
        if not any((root / "meshq" / folder / "py.typed").exists() for root in ROOTS)
    ]
    assert untyped == []


def test_every_written_part_is_a_package() -> None:
    bare = [
        str(folder.relative_to(REPOSITORY))
        for root in ROOTS
        for folder in sorted((root / "meshq").iterdir())
        if folder.is_dir() and folder.name not in GENERATED | {"__pycache__"}
        if not (folder / "__init__.py").exists()
    ]
    assert bare == []


BREAKS = [
    pytest.param(broken_parts, module, statement, id=f"{module}: {statement}")
    for module, statement in [
        ("v1.task_pb2", "import meshq.contract.ids"),
        ("contract.ids", "import meshq.mesh"),
        ("mesh.server", "from meshq import management"),
        ("client.calls", "from meshq.mesh.channels import OPTIONS"),
        ("client.calls", "import meshq.internal.v1.ledger_service_pb2"),
        ("worker.session", "from meshq.execution import sessions"),
        ("cli.main", "def f():\n    import meshq.local.commands"),
        ("tasks.text", "import meshq.registry"),
        ("registry.app", "import meshq.gateway.app"),
        ("management.app", "from ..execution import ring"),
        ("execution.app", "if TYPE_CHECKING:\n    from meshq.management.model import Task"),
        ("gateway.app", "from meshq.client import Client"),
        ("local.system", "import meshq.management.app"),
        ("local.bench.bulk", "from meshq.execution.ring import scripts"),
        ("local.bench.limit.calls", "import meshq.registry"),
        ("brand_new", "import meshq.v1.task_pb2"),
    ]
] + [
    pytest.param(check, module, statement, id=f"{module}: {statement}")
    for check, module, statement in [
        (broken_drivers, "management.app", "import psycopg"),
        (broken_drivers, "execution.attempts", "from psycopg_pool import AsyncConnectionPool"),
        (broken_drivers, "execution.sessions.session", "import redis.asyncio as redis"),
        (broken_drivers, "registry.directory", "from pyetcd import something"),
        (broken_drivers, "client.calls", "import rich.table"),
        (broken_drivers, "contract.limits", "import pydantic"),
        (broken_models, "management.model.task", "from meshq.v1 import task_pb2"),
        (broken_models, "execution.ring.ring", "import meshq.internal.v1.session_frames_pb2"),
    ]
]


@pytest.mark.parametrize(("check", "module", "statement"), BREAKS)
def test_a_broken_rule_is_seen(tmp_path: Path, check: Check, module: str, statement: str) -> None:
    path = tmp_path / "meshq" / (module.replace(".", "/") + ".py")
    path.parent.mkdir(parents=True)
    path.write_text("import os\n")
    assert check(graph([tmp_path])) == []
    path.write_text(f"import os\n{statement}\n")
    (line,) = check(graph([tmp_path]))
    assert line.startswith(f"meshq.{module} imports ")
