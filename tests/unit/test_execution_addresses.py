"""Addresses of shards: servers, and primaries that Sentinels watch over."""

import pytest
from pydantic import ValidationError

from meshq.execution.ring.address import Server, Watched, parse_address
from meshq.execution.ring.hashring import RingShard
from meshq.execution.settings import ExecutionSettings, parse_shard

TWO = Watched((Server("a", 1), Server("b", 2)), "main")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:6379", Server("host", 6379)),
        ("[::1]:6379", Server("::1", 6379)),
        ("sentinel://a:1,b:2/main", TWO),
        ("sentinel://[::1]:26379/x.y_z-1", Watched((Server("::1", 26379),), "x.y_z-1")),
    ],
)
def test_an_address_survives_its_text(text: str, address: Server | Watched) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must be host:port"),
        ("host", "must be host:port"),
        ("host:0", "a port of 1 to 65535"),
        ("host:65536", "a port of 1 to 65535"),
        ("::1:6379", "must be host:port"),
        ("redis://host:1", "must be host:port"),
        ("sentinel://a:1,b:2", "must end with /name"),
        ("sentinel://a:1/", "must end with /name"),
        ("sentinel://a:1/two words", "must end with /name"),
        ("sentinel:///main", "must be host:port"),
        ("sentinel://a:1,/main", "must be host:port"),
        ("sentinel://a:1,a:1/main", "must not name a Sentinel twice"),
        ("sentinel://" + ",".join(f"a:{port}" for port in range(1, 18)) + "/main", "at most 16 Sentinels"),
    ],
)
def test_what_is_no_address_is_refused_with_the_rule(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        parse_address(text)


def shards(text: str) -> list[RingShard]:
    settings = {"database_url": "postgresql://x", "shards": text}
    return ExecutionSettings.model_validate(settings).wanted_shards()


def test_settings_tell_the_commas_of_sentinels_from_those_of_shards() -> None:
    found = shards("one=sentinel://a:1,b:2/main*3, two=host:6379, three=sentinel://a:1, b:2, c:3/other")
    assert found == [
        RingShard("one", str(TWO), 3),
        RingShard("two", "host:6379"),
        RingShard("three", "sentinel://a:1,b:2,c:3/other"),
    ]
    assert parse_shard("s=sentinel://a:1,b:2/main*3") == RingShard("s", str(TWO), 3)


@pytest.mark.parametrize("text", ["a:1,b:2/main", "one=a:1,b:2", "one=sentinel://a:1/x,one=sentinel://b:1/x"])
def test_settings_refuse_what_is_no_list_of_shards(text: str) -> None:
    with pytest.raises(ValidationError):
        shards(text)


def test_passwords_come_from_the_settings() -> None:
    settings = ExecutionSettings.model_validate(
        {"database_url": "postgresql://x", "shard_password": "s", "sentinel_password": "t"}
    )
    assert settings.passwords() == ("s", "t")
