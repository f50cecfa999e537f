"""What the console makes of what it hears: the judgement, the page, the merged metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshq.gateway.console.health import Health, assess
from meshq.gateway.console.metrics import Scraped, merged
from meshq.gateway.console.page import Page, asset, duration, number, render, render_status, size
from meshq.gateway.console.view import (
    InstanceView,
    Listing,
    Overview,
    QueueView,
    ShardView,
    WorkerView,
)
from meshq.gateway.envoy.supervisor import EnvoyState

ALL = ("meshq.gateway", "meshq.registry", "meshq.management", "meshq.execution")
LIVE = EnvoyState(live=True, routes=True, active_calls=3, restarts=0)
DEAD = EnvoyState(live=False, routes=False, active_calls=0, restarts=2)


def test_healthy_when_all_is_there() -> None:
    health = assess(ALL, Overview(), LIVE)
    assert (health.status, health.serves) == ("ok", True)
    assert {name: facts["instances"] for name, facts in health.components.items()} == dict.fromkeys(ALL, 1)


@pytest.mark.parametrize("missing", ["meshq.management", "meshq.execution"])
def test_unavailable_without_a_component_that_calls_need(missing: str) -> None:
    health = assess([name for name in ALL if name != missing], Overview(), LIVE)
    assert (health.status, health.serves) == ("unavailable", False)


def test_calls_go_on_without_the_registry() -> None:
    overview = Overview(instances=Listing(problem="No instance answers."))
    health = assess(ALL, overview, LIVE)
    assert (health.status, health.serves) == ("degraded", True)
    assert health.components["meshq.registry"]["problem"] == "No instance answers."


def test_shards_that_do_not_answer_are_a_problem() -> None:
    lost = replace(SHARD, state="UNREACHABLE")
    health = assess(ALL, Overview(shards=Listing([SHARD, lost])), LIVE)
    assert (health.status, health.components["meshq.execution"]["problem"]) == (
        "degraded",
        "1 of 2 shards do not answer.",
    )


def test_a_gateway_that_is_about_to_stop_takes_no_clients() -> None:
    health = assess(ALL, Overview(), replace(LIVE, draining=True))
    assert (health.status, health.serves) == ("draining", False)


@pytest.mark.parametrize("edge", [DEAD, EnvoyState(live=True, routes=False, active_calls=0, restarts=0)])
def test_unavailable_without_envoy_or_its_routes(edge: EnvoyState) -> None:
    assert not assess(ALL, Overview(), edge).serves


QUEUE = QueueView("mail", 12_345, 9_000, 5, 3_340, 88, 7, 0, 0, 120.5, 118.0, 75.0, complete=False)
SHARD = ShardView("shard-1", "127.0.0.1:7001", "RECOVERING", 2, 0.34, 3, 10, 1, 4, 5 << 20)
WORKER = WorkerView(
    "<script>", "POLL", "ACTIVE", "execution-1", ("a", "b"), ("mail",), 8, 2, "x/1", connected=500.0, seen=1.0
)
INSTANCE = InstanceView(
    "meshq.execution",
    "execution-1",
    "127.0.0.1:1",
    "127.0.0.1:2",
    "local",
    "0.1.0",
    1,
    stale=True,
    age=90_000.0,
)


def shown(overview: Overview, edge: EnvoyState = LIVE) -> str:
    return render(Page(overview, assess(ALL, overview, edge), "127.0.0.1:8080", "gateway-1", "0.1.0"))


def test_the_page_shows_everything() -> None:
    text = shown(Overview(Listing([INSTANCE]), Listing([SHARD]), Listing([QUEUE]), Listing([WORKER])))
    for expected in (
        "12\u202f345",
        "120.5",
        "75 s",
        "incomplete",
        "recovering",
        "34.0 %",
        "5.0 MiB",
        "stale",
    ):
        assert expected in text
    assert "25 h" in text
    assert "polls" in text


def test_the_page_escapes_what_others_wrote() -> None:
    text = shown(Overview(workers=Listing([WORKER])))
    assert "<td><script>" not in text
    assert "&lt;script&gt;" in text


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = shown(Overview())
    assert "http://" not in text
    assert "https://" not in text
    assert "http" not in asset("console.css")


def test_an_empty_mesh_is_not_an_error() -> None:
    text = shown(Overview())
    assert "There is no queue yet" in text
    assert "No worker is connected" in text
    assert "not available" not in text


def test_a_part_that_is_missing_is_named_and_the_others_stay() -> None:
    text = shown(Overview(queues=Listing(problem="No instance answers."), shards=Listing([SHARD])))
    assert "The queues are not available." in text
    assert "There is no queue yet" not in text
    assert "shard-1" in text


def test_more_than_a_page_is_said() -> None:
    assert "these are the first 1" in shown(Overview(queues=Listing([QUEUE], more=True)))


def test_a_dead_envoy_is_shown() -> None:
    text = shown(Overview(), DEAD)
    assert "Envoy does not serve" in text
    assert "2 \N{MULTIPLICATION SIGN} restarted" in text


def test_the_status_is_the_page_without_its_frame() -> None:
    health: Health = assess(ALL, Overview(), LIVE)
    status = render_status(Page(Overview(), health, "127.0.0.1:8080", "gateway-1", "0.1.0"))
    assert "<html" not in status
    assert status.strip().splitlines()[0] in shown(Overview())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0.25, "0.2 s"),
        (42.0, "42 s"),
        (119.0, "119 s"),
        (600.0, "10 min"),
        (9_000.0, "2 h"),
        (1e6, "12 d"),
    ],
)
def test_durations(value: float | None, text: str) -> None:
    assert duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (5 << 30, "5.0 GiB")],
)
def test_sizes(value: int, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1_234_567, "1\u202f234\u202f567"), (0.75, "0.8"), (1_000.0, "1\u202f000")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


FIRST = """# HELP calls_total Calls.
# TYPE calls_total counter
calls_total 3
calls_total{code="OK"} 2
# HELP other Something.
# TYPE other gauge
other{} 1
"""
SECOND = """# TYPE other gauge
other{instance="own",component_x="y"} 7
# HELP calls_total Calls, in other words.
# TYPE calls_total counter
calls_total{code="a b",path="x{y"} 5
"""


def test_metrics_are_one_block_each_and_tell_who_said_them() -> None:
    text = merged([Scraped("meshq.a", "one", FIRST), Scraped("meshq.b", 'tw"o', SECOND)])
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) == {"meshq_instance_reached", "calls", "other"}
    calls = [(sample.labels, sample.value) for sample in families["calls"].samples]
    assert ({"component": "meshq.a", "instance": "one"}, 3.0) in calls
    assert ({"component": "meshq.a", "instance": "one", "code": "OK"}, 2.0) in calls
    assert ({"component": "meshq.b", "instance": 'tw"o', "code": "a b", "path": "x{y"}, 5.0) in calls
    other = [sample.labels for sample in families["other"].samples]
    expected = {"component": "meshq.b", "instance": 'tw"o', "exported_instance": "own", "component_x": "y"}
    assert other == [{"component": "meshq.a", "instance": "one"}, expected]
    assert text.count("# TYPE other") == text.count("# TYPE calls_total") == 1


def test_who_did_not_answer_is_told() -> None:
    text = merged([Scraped("meshq.a", "one", FIRST), Scraped("meshq.b", "two", None)])
    reached, *_ = text_string_to_metric_families(text)
    assert [(sample.labels["instance"], sample.value) for sample in reached.samples] == [
        ("one", 1.0),
        ("two", 0.0),
    ]
