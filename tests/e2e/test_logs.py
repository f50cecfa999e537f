"""What a system says in its logs while nothing is wrong."""

from meshq.local.system import System


def test_grpc_does_not_get_ready_for_forks(system: System) -> None:
    """The gateway forks for Envoy; a gRPC that gets ready for that may make it stand still for ever."""
    logs = {path.name: path.read_text() for path in (system.data / "logs").iterdir()}
    assert "gateway.log" in logs
    assert [name for name, text in logs.items() if "fork_posix" in text] == []
