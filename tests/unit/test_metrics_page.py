"""docs/metrics.md names all metrics that the components have, and no others."""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import NamedTuple

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from meshq.gateway.console.metrics import Scraped, merged

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
COMPONENTS = ("mesh", "registry", "management", "execution", "gateway")
ROW = re.compile(r"\| `(\w+)` \| (\w+) \| (.*?) ?\| ([a-z, ]+) \| (.+) \|")
AT_THE_EDGE = "meshq_instance_reached"
OWNERS = {"all", *COMPONENTS}


class Described(NamedTuple):
    """A metric, but for its meaning."""

    name: str
    kind: str
    labels: tuple[str, ...]


def import_everything() -> None:
    for component in COMPONENTS:
        package = importlib.import_module(f"meshq.{component}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def registered() -> set[Described]:
    import_everything()
    found = set()
    for collector in tuple(REGISTRY._collector_to_names):
        if isinstance(collector, Counter | Gauge | Histogram):
            name = f"{collector._name}_total" if isinstance(collector, Counter) else collector._name
            found.add(Described(name, collector._type, tuple(collector._labelnames)))
    return found


def on_the_page() -> dict[Described, str]:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert all(set(of.split(", ")) <= OWNERS for *_, of, _ in rows)
    return {
        Described(name, kind, tuple(re.findall(r"`(\w+)`", labels))): meaning
        for name, kind, labels, _, meaning in rows
    }


def test_the_page_describes_the_metrics_that_there_are() -> None:
    described = {metric for metric in on_the_page() if metric.name != AT_THE_EDGE}
    exist = {metric for metric in registered() if not metric.name.startswith("python_")}
    assert described - exist == set(), "described, but there is none"
    assert exist - described == set(), "to be described in docs/metrics.md"


def test_no_line_of_the_table_is_overlooked() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(lines) == len(on_the_page())


def test_what_the_edge_adds_is_described() -> None:
    text = merged([Scraped("meshq.registry", "r-1", None)])
    kind = dict(re.findall(r"# TYPE (\w+) (\w+)", text))
    assert kind == {AT_THE_EDGE: "gauge"}
    assert Described(AT_THE_EDGE, "gauge", ()) in on_the_page()
    assert "`component` and `instance`" in PAGE.read_text(encoding="utf-8")


def test_each_metric_says_itself_what_it_means() -> None:
    import_everything()
    families = [family for family in REGISTRY.collect() if family.name.startswith(("meshq_", "grpc_"))]
    assert families
    assert [family.name for family in families if not family.documentation.endswith(".")] == []
