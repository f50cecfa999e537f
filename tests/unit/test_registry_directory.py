"""Which instances there are, after what etcd and the health checks say."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from meshq.mesh.registration import Announcement
from meshq.registry.directory import Directory, dialable

STALE = 20.0


def announcement(name: str, component: str = "meshq.management", **facts: object) -> Announcement:
    port = 7000 + sum(name.encode())
    return Announcement(component, name, f"127.0.0.1:{port}", {"services": ["meshq.v1.TaskService"], **facts})


def key(name: str) -> str:
    return f"meshq.management/{name}"


def names(directory: Directory) -> list[str]:
    return [item.instance_id for item in directory.instances()]


def filled(*found: str) -> Directory:
    directory = Directory(STALE)
    directory.replace_all([announcement(name) for name in found], now=0)
    return directory


def test_instances_come_in_order_and_by_component() -> None:
    directory = filled("b", "a")
    directory.put(announcement("x", "meshq.execution"))
    assert names(directory) == ["x", "a", "b"]
    assert [item.instance_id for item in directory.instances("meshq.management")] == ["a", "b"]


def test_an_instance_says_whether_it_leads() -> None:
    directory = filled("a", "b")
    before = directory.sequence
    directory.put(announcement("b", leader=True))
    assert [item.leader for item in directory.instances()] == [False, True]
    assert directory.sequence > before
    directory.put(announcement("b", leader="yes"))
    assert [item.leader for item in directory.instances()] == [False, False]


def test_goodbye_removes_at_once() -> None:
    directory = filled("a", "b")
    directory.put(replace(announcement("a"), goodbye=True))
    assert names(directory) == ["b"]
    directory.drop(key("b"))
    assert names(directory) == []


def test_a_vanished_instance_is_stale_until_it_is_back() -> None:
    directory = filled("a")
    directory.remove(key("a"), now=5)
    assert [item.stale for item in directory.instances()] == [True]
    directory.put(announcement("a"))
    assert [item.stale for item in directory.instances()] == [False]


def test_an_empty_listing_empties_nothing() -> None:
    directory = filled("a", "b")
    directory.replace_all([], now=10)
    assert names(directory) == ["a", "b"]
    assert all(item.stale for item in directory.instances())
    directory.expire(now=10 + 100 * STALE)
    assert names(directory) == ["a", "b"]


def test_stale_instances_go_when_others_are_there() -> None:
    directory = filled("a", "b")
    directory.replace_all([announcement("b")], now=10)
    directory.expire(now=10 + STALE - 1)
    assert names(directory) == ["a", "b"]
    directory.expire(now=10 + STALE)
    assert names(directory) == ["b"]


def test_staleness_is_counted_from_its_begin() -> None:
    directory = filled("a", "b")
    directory.remove(key("a"), now=0)
    directory.replace_all([announcement("b")], now=15)
    directory.expire(now=STALE)
    assert names(directory) == ["b"]


def test_a_new_instance_replaces_one_at_its_address() -> None:
    directory = filled("a")
    directory.put(replace(announcement("a"), instance_id="a-2"))
    assert names(directory) == ["a-2"]


def test_sequence_counts_changes_only() -> None:
    directory = filled("a")
    before = directory.sequence
    directory.put(announcement("a"))
    directory.remove("meshq.management/unknown", now=1)
    directory.drop("meshq.management/unknown")
    directory.expire(now=1)
    assert directory.sequence == before
    directory.put(announcement("a", version="2"))
    assert directory.sequence == before + 1


def test_services_stay_known() -> None:
    directory = filled("a")
    directory.drop(key("a"))
    assert directory.services() == {"meshq.v1.TaskService": "meshq.management"}


@given(
    st.dictionaries(
        st.sampled_from(
            ["services", "zone", "version", "weight", "admin", "console", "register_time", "anything"]
        ),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=True)
        | st.text()
        | st.lists(st.text()),
    )
)
def test_metadata_of_any_shape_is_survived(facts: dict[str, object]) -> None:
    directory = Directory(STALE)
    directory.put(Announcement("meshq.management", "a", "127.0.0.1:1", facts))
    (instance,) = directory.instances()
    assert 1 <= instance.weight <= 1_000


def test_only_numbers_can_be_published() -> None:
    assert dialable("127.0.0.1:80")
    assert dialable("[::1]:80")
    for address in ("localhost:80", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:x", "127.0.0.1:70000", ":80", ""):
        assert not dialable(address)
