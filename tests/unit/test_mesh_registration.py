"""What a process says about itself in etcd."""

import json

import pytest

from meshq.mesh.addresses import reachable
from meshq.mesh.channels import target_of
from meshq.mesh.registration import Announcement

HERE = Announcement("meshq.management", "m-1", "127.0.0.1:7401", {"services": ["meshq.v1.TaskService"]})


def test_announcement_is_that_of_etcds_naming() -> None:
    assert HERE.key == "meshq.management/m-1"
    assert json.loads(HERE.encode()) == {
        "Op": 0,
        "Addr": "127.0.0.1:7401",
        "Metadata": {"services": ["meshq.v1.TaskService"]},
    }


def test_announcement_and_goodbye_come_back() -> None:
    assert Announcement.decode(HERE.key, HERE.encode()) == HERE
    goodbye = Announcement.decode(HERE.key, HERE.encode(goodbye=True))
    assert goodbye is not None
    assert goodbye.goodbye


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("meshq.management", b'{"Addr":"h:1"}'),
        ("meshq.management/", b'{"Addr":"h:1"}'),
        ("meshq.management/x", b""),
        ("meshq.management/x", b"[]"),
        ("meshq.management/x", b'"x"'),
        ("meshq.management/x", b'{"Addr":1}'),
        ("meshq.management/x", b'{"Addr":"h:1","Metadata":[1]}'),
        ("meshq.management/x", b"\xff\xfe"),
    ],
)
def test_what_is_no_announcement_is_none(key: str, value: bytes) -> None:
    assert Announcement.decode(key, value) is None


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        (["127.0.0.1:7400"], "ipv4:127.0.0.1:7400"),
        (["10.0.0.1:7400", "10.0.0.2:7400"], "ipv4:10.0.0.1:7400,10.0.0.2:7400"),
        (["registry:7400", "other:7400"], "registry:7400"),
    ],
)
def test_target_of_several_addresses(addresses: list[str], target: str) -> None:
    assert target_of(addresses) == target


async def test_registered_addresses_are_numbers() -> None:
    assert await reachable("127.0.0.1:7401") == "127.0.0.1:7401"
    assert await reachable("[::1]:7401") == "[::1]:7401"
    assert await reachable("localhost:7401") in {"127.0.0.1:7401", "[::1]:7401"}
    assert not (await reachable("0.0.0.0:7401")).startswith("0.0.0.0")
    assert await reachable("no-such-host.invalid:1") == "no-such-host.invalid:1"
