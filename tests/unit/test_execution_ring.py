"""The hash ring: even shares, few moves, stable names; and what travels to shards and back as text."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshq.contract.ids import lowest_id, new_id_bytes
from meshq.execution.model import Traits
from meshq.execution.ring import scripts
from meshq.execution.ring.extras import encode_extras, parse_extras
from meshq.execution.ring.hashring import POINTS_PER_WEIGHT, Ring, RingShard, key_of_id
from meshq.execution.settings import parse_shard

KEYS = [random.Random(index).randbytes(16) for index in range(4_000)]


def ring(*names: str, version: int = 1) -> Ring:
    return Ring(version, [RingShard(name, "127.0.0.1:1") for name in names])


def owners(found: Ring) -> dict[bytes, str | None]:
    return {key: found.owner(key) for key in KEYS}


@pytest.mark.parametrize("count", range(1, 17))
def test_shares_are_within_five_percent_of_even(count: int) -> None:
    shares = ring(*(f"shard-{index}" for index in range(1, count + 1))).shares()
    assert POINTS_PER_WEIGHT >= 100
    assert sum(shares.values()) == pytest.approx(1.0)
    assert all(abs(share * count - 1) < 0.05 for share in shares.values())


@settings(deadline=None, max_examples=20)
@given(st.lists(st.text("abcdefgh-.", min_size=1, max_size=12), min_size=2, max_size=4, unique=True))
def test_shares_are_even_whatever_the_names(names: list[str]) -> None:
    shares = ring(*names).shares()
    assert all(abs(share * len(names) - 1) < 0.05 for share in shares.values())


def test_weight_scales_the_share() -> None:
    shares = Ring(1, [RingShard("a", "", 3), RingShard("b", "", 1)]).shares()
    assert shares["a"] == pytest.approx(0.75, rel=0.03)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_adding_a_shard_moves_its_part_of_the_keys_and_no_others(count: int) -> None:
    names = [f"shard-{index}" for index in range(count)]
    before, after = owners(ring(*names)), owners(ring(*names, "new"))
    moved = {key for key in KEYS if before[key] != after[key]}
    assert {after[key] for key in moved} == {"new"}
    assert len(moved) / len(KEYS) == pytest.approx(1 / (count + 1), rel=0.15)


def test_owners_depend_on_names_only() -> None:
    there = Ring(1, [RingShard("a", "10.0.0.1:1"), RingShard("b", "10.0.0.2:1")])
    here = Ring(9, [RingShard("b", "127.0.0.1:2"), RingShard("a", "127.0.0.1:3")])
    assert owners(there) == owners(here)


def test_a_draining_shard_takes_nothing_new() -> None:
    found = Ring(1, [RingShard("a", ""), RingShard("b", "", draining=True)])
    assert set(owners(found).values()) == {"a"}
    assert found.shares() == {"a": 1.0, "b": 0.0}


def created(time_ms: int) -> bytes:
    """The id of a task that was created then."""
    return lowest_id(time_ms).bytes[:6] + new_id_bytes()[6:]


def test_what_is_created_together_stays_together() -> None:
    begin = 0x0192_5A3B_7C10
    assert len({key_of_id(created(begin + later)) for later in range(16)}) == 1
    assert key_of_id(created(begin - 1)) != key_of_id(created(begin)) != key_of_id(created(begin + 16))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_what_is_created_over_a_minute_is_everywhere(count: int) -> None:
    found = ring(*(f"shard-{index}" for index in range(count)))
    moments = [0x0192_5A3B_7C10 + 16 * index for index in range(60_000 // 16)]
    there = Counter(found.owner(key_of_id(created(moment))) for moment in moments)
    assert len(there) == count
    assert all(abs(share * count / len(moments) - 1) < 0.15 for share in there.values())


def test_an_empty_ring_owns_nothing() -> None:
    assert ring().owner(b"key") is None
    assert ring().shares() == {}


@pytest.mark.parametrize(
    ("text", "shard"),
    [
        ("a=host:6379", RingShard("a", "host:6379")),
        ("s-1=10.0.0.1:1*3", RingShard("s-1", "10.0.0.1:1", 3)),
        ("a=[::1]:6379", RingShard("a", "[::1]:6379")),
    ],
)
def test_settings_name_shards(text: str, shard: RingShard) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize(
    "text", ["", "a", "a=host", "=h:1", "a=h:x", "a=h:99999", "a=h:1*0", "a=h:1*x", "a b=h:1"]
)
def test_settings_refuse_what_is_no_shard(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        parse_shard(text)


@given(
    st.builds(
        Traits,
        limit_key=st.text(max_size=128),
        rate_units=st.integers(1, 1_000),
        fairness_weight=st.floats(0.01, 100).map(lambda weight: float(f"{weight:g}")),
        start_by_ms=st.integers(0, 1 << 45),
        start_to_close_ms=st.integers(0, 1 << 40),
        heartbeat_ms=st.integers(0, 1 << 30),
        announce=st.booleans(),
    )
)
def test_traits_survive_their_text(traits: Traits) -> None:
    assert parse_extras(encode_extras(traits)) == traits


def test_a_plain_task_has_no_extras() -> None:
    assert encode_extras(None) == encode_extras(Traits()) == b""
    assert parse_extras(b"") == Traits()


def test_scripts_hold_no_names_that_are_not_put_in() -> None:
    assert len({script.name for script in scripts.ALL}) == len(scripts.ALL)
    for script in scripts.ALL:
        code = [line.partition("--")[0] for line in script.text.decode().splitlines()]
        assert not [line for line in code if "KEY." in line or "AT." in line]
        # What comes behind the first line must not be taken for another one.
        assert script.text.startswith(b"#!lua")
        assert script.text.count(b"#!lua") == 1
