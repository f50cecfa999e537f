"""What the contract says about methods."""

from meshq.mesh.contract_methods import Method, methods_of, public_services


def method(service: str, name: str) -> Method:
    return next(item for item in methods_of(service) or () if item.name == name)


def test_public_services_are_those_of_the_public_package() -> None:
    services = public_services()
    assert "meshq.v1.TaskService" in services
    assert "meshq.v1.RegistryService" in services
    assert all(name.startswith("meshq.v1.") for name in services)


def test_methods_are_read_from_the_descriptors() -> None:
    assert method("meshq.v1.TaskService", "GetTask") == Method("GetTask", False, True, False)
    assert method("meshq.v1.TaskService", "CreateTask") == Method("CreateTask", False, False, True)
    assert method("meshq.v1.TaskService", "WatchTask").streams
    assert method("meshq.v1.WorkerService", "Connect").streams
    assert method("meshq.internal.v1.LedgerService", "ReportAttempts").idempotent


def test_an_unknown_service_has_no_methods() -> None:
    assert methods_of("someone.else.Service") is None
