"""The numbers in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from altmap.host.metrics import METRICS, Sample

__all__ = ("prometheus_text",)


class _Gauges(Collector):
    def __init__(self, look: Callable[[], Iterable[Sample]]) -> None:
        self._look = look

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name the gauges, so that registering them does not look at the machine."""
        return (GaugeMetricFamily(name, text, labels=of) for name, (of, text) in METRICS.items())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Look at the machine."""
        families = {family.name: family for family in self.describe()}
        for sample in self._look():
            families[sample.name].add_metric(sample.labels, sample.value)
        return (family for family in families.values() if family.samples)


def prometheus_text(look: Callable[[], Iterable[Sample]]) -> str:
    """Return the numbers in the text format, for a textfile collector or a scrape."""
    return generate_latest(_registry(look)).decode()


def _registry(look: Callable[[], Iterable[Sample]]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Gauges(look))
    return registry
