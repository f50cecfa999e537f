"""What the wheel holds, and that it works without the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = {
    "meshq/v1",
    "meshq/internal/v1",
    "meshq/contract",
    "meshq/mesh",
    "meshq/registry",
    "meshq/management",
    "meshq/execution",
    "meshq/gateway",
    "meshq/client",
    "meshq/worker",
    "meshq/cli",
    "meshq/tasks",
    "meshq/bench",
    "meshq/local",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline by the installed hatchling."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def tracked(pattern: str) -> set[str]:
    """The files of the parts that git knows, by their names below their root."""
    listed = subprocess.run(
        ["git", "ls-files", "--", f"*/meshq/{pattern}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        "meshq/" + name.partition("/meshq/")[2]
        for name in listed.stdout.splitlines()
        if not name.startswith("tests/")
    }


def test_every_part_is_there_and_typed(names: set[str]) -> None:
    assert {f"{part}/py.typed" for part in PARTS} <= names
    assert {name.rpartition("/")[0] for name in names if name.endswith("/py.typed")} == PARTS


def test_nothing_stands_outside_of_the_package(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"meshq"}


def test_no_tests_and_no_leftovers(names: set[str]) -> None:
    wrong = [
        name
        for name in names
        if "/tests/" in name
        or "/test_" in name
        or "__pycache__" in name
        or "node_modules" in name
        or name.endswith((".pyc", ".log", ".sock"))
    ]
    assert wrong == []


@pytest.mark.parametrize("suffix", [".py", ".pyi", ".sql", ".lua", ".toml", ".html", ".js", ".css", ".json"])
def test_all_files_of_the_parts_are_packed(names: set[str], suffix: str) -> None:
    assert tracked(f"*{suffix}") <= names


@pytest.mark.parametrize(
    "needed",
    [
        "meshq/v1/task_service.proto",
        "meshq/v1/task.proto",
        "meshq/v1/task_service_pb2.pyi",
        "meshq/registry/mesh.toml",
    ],
)
def test_what_runs_without_a_checkout(names: set[str], needed: str) -> None:
    assert needed in names


@pytest.mark.parametrize(
    ("part", "suffix"), [("execution", ".lua"), ("execution", ".sql"), ("management", ".sql")]
)
def test_stores_have_their_scripts(names: set[str], part: str, suffix: str) -> None:
    assert [name for name in names if name.startswith(f"meshq/{part}/") and name.endswith(suffix)]


def test_the_namespace_stays_open(names: set[str]) -> None:
    assert not {"meshq/__init__.py", "meshq/internal/__init__.py"} & names


def test_the_console_script_and_the_licence(wheel: Path, names: set[str]) -> None:
    (entry,) = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(entry).decode()
    assert "meshq = meshq.cli.main:main" in text
    assert "[meshq.cli]" in text
    assert any(name.endswith("/LICENSE") for name in names)


PROBE = """
import importlib, sys
site, unpacked, checkout = sys.argv[1:]
sys.path[:] = [unpacked, *(p for p in sys.path if "site-packages" not in p), site]
for part in ("contract", "client", "worker", "cli", "tasks", "mesh", "registry", "management", "execution",
             "gateway", "local"):
    module = importlib.import_module(f"meshq.{part}")
    for name in getattr(module, "__all__", ()):
        getattr(module, name)
for name in ("meshq.v1.task_service_pb2_grpc", "meshq.internal.v1.ledger_service_pb2_grpc", "meshq.cli.main"):
    importlib.import_module(name)
strays = [m.__file__ for m in list(sys.modules.values())
          if (getattr(m, "__file__", None) or "").startswith(checkout) and not m.__file__.startswith(site)]
assert not strays, strays
"""


def test_public_names_import_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    site = sysconfig.get_path("purelib")
    # -S as well: the editable install of the checkout must not help.
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", PROBE, site, str(tmp_path), str(REPOSITORY)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
