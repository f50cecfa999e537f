"""The policy is data, checked when it is read."""

from pathlib import Path

import pytest

from meshq.contract.limits import MAX_POLL_WAIT_SECONDS, MAX_RUN_WAIT_SECONDS
from meshq.mesh.contract_methods import methods_of
from meshq.registry.policy import load_policy
from meshq.registry.settings import RegistrySettings


def test_packaged_policy_fits_the_contract() -> None:
    policy = load_policy(None)
    for entry in policy.deadlines.methods:
        service, _, name = entry.partition("/")
        assert name in [method.name for method in methods_of(service) or ()], entry
    assert policy.deadlines.of("meshq.v1.TaskService", "RunTask") > MAX_RUN_WAIT_SECONDS
    assert policy.deadlines.of("meshq.v1.WorkerService", "PollTasks") > MAX_POLL_WAIT_SECONDS
    assert policy.outlier.failure_percentage == 85
    assert policy.outlier.max_ejection_percent == 50


def test_a_file_lies_over_the_packaged_policy(tmp_path: Path) -> None:
    file = tmp_path / "mesh.toml"
    file.write_text(
        '[deadlines]\ndefault = 7\n[canary."meshq.management"]\nversion = "2"\npercent = 5\n'
        '[deadlines.methods]\n"a.B/C" = 3\n'
    )
    policy = load_policy(file)
    assert policy.deadlines.of("x", "y") == 7
    assert policy.deadlines.of("a.B", "C") == 3
    assert policy.deadlines.of("meshq.v1.TaskService", "RunTask") > MAX_RUN_WAIT_SECONDS
    assert policy.canary["meshq.management"].percent == 5
    assert policy.retries == load_policy(None).retries


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[retries]\nattempts = 9", "retries.attempts"),
        ("[deadlines]\ndefault = 0", "deadlines.default"),
        ("[surprise]\nx = 1", "surprise"),
        ("[outlier]\nfailure_percentage = 'all'", "outlier.failure_percentage"),
        ("retries = 3", "retries"),
        ("[", "cannot read"),
    ],
)
def test_a_bad_policy_is_named(
    tmp_path: Path,
    content: str,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "mesh.toml"
    file.write_text(content)
    with pytest.raises(ValueError, match=named):
        load_policy(file)
    monkeypatch.setenv("MESHQ_MESH_POLICY", str(file))
    with pytest.raises(SystemExit):
        RegistrySettings.load()
    said = capsys.readouterr().err
    assert said.startswith("meshq: MESHQ_MESH_POLICY: ")
    assert named in said
