"""The metrics of the whole mesh in one answer, each sample labelled with its process.

Prometheus wants each metric's samples in one block below one `# TYPE`, so the texts of the processes
are taken apart by lines and put together by metric. Nothing is parsed beyond that.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from meshq.gateway.console.view import InstanceView

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = aiohttp.ClientTimeout(total=2.0)
_TAKEN: Final = re.compile(r"([{,])(component|instance)=")
_REACHED: Final = "meshq_instance_reached"


@dataclass(frozen=True)
class Scraped:
    """What one process said.

    Attributes:
        component: Its component.
        instance: Its instance id.
        text: Its metrics as Prometheus text; None when it did not answer.
    """

    component: str
    instance: str
    text: str | None


async def scrape(session: aiohttp.ClientSession, instances: Iterable[InstanceView]) -> Sequence[Scraped]:
    """Ask processes for their metrics, all at once."""
    return await asyncio.gather(*(_scrape(session, instance) for instance in instances))


async def _scrape(session: aiohttp.ClientSession, instance: InstanceView) -> Scraped:
    text: str | None = None
    try:
        async with session.get(f"http://{instance.admin_address}/metrics", timeout=_SECONDS) as answer:
            if answer.ok:
                text = await answer.text()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        pass
    return Scraped(instance.component, instance.instance_id, text)


def merged(parts: Iterable[Scraped]) -> str:
    """One text of all; `meshq_instance_reached` says who answered."""
    metrics: dict[str, _Metric] = {}
    reached = _Metric([f"# HELP {_REACHED} 1 if the process answered.", f"# TYPE {_REACHED} gauge"])
    for part in parts:
        labels = f'component="{_escaped(part.component)}",instance="{_escaped(part.instance)}"'
        reached.samples.append(f"{_REACHED}{{{labels}}} {0 if part.text is None else 1}")
        _take_apart(part.text or "", labels, metrics)
    lines = [line for metric in (reached, *metrics.values()) for line in (*metric.head, *metric.samples)]
    return "\n".join(lines) + "\n"


@dataclass
class _Metric:
    head: list[str]
    samples: list[str] = field(default_factory=list)


def _take_apart(text: str, labels: str, into: dict[str, _Metric]) -> None:
    for name, head, samples in _blocks(text):
        metric = into.setdefault(name, _Metric(head))
        metric.samples.extend(_labelled(sample, labels) for sample in samples)


def _blocks(text: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """The name, comments and samples of each metric."""
    name = ""
    head: list[str] = []
    samples: list[str] = []
    for line in text.splitlines():
        if line.startswith("# "):
            words = line.split(" ", 3)
            if len(words) > 2 and words[1] in ("HELP", "TYPE"):  # noqa: PLR2004 - sign, keyword, name
                if words[2] != name:
                    if samples:
                        yield name, head, samples
                    name, head, samples = words[2], [], []
                head.append(line)
        elif line:
            samples.append(line)
    if samples:
        yield name, head, samples


def _labelled(sample: str, labels: str) -> str:
    """The sample with labels before its own; own ones of the same names are kept as `exported_...`."""
    brace, space = sample.find("{"), sample.find(" ")
    if not 0 <= brace < space:
        return f"{sample[:space]}{{{labels}}}{sample[space:]}"
    own = _TAKEN.sub(r"\1exported_\2=", sample[brace:])[1:]
    return f"{sample[:brace]}{{{labels}{'' if own.startswith('}') else ','}{own}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
