"""The numbers in Prometheus' text format: as text, or answered to scrapes on this machine only.

This module has effects: it can listen.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from altmap.errors import AltmapError, InputError
from altmap.host.metrics import METRICS, Sample

__all__ = ("listen", "prometheus_text")

_ADDRESS = re.compile(r"(\[[0-9a-f:]+\]|[0-9.]+):([0-9]{1,5})")


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
    """Return the numbers in the text format, for a textfile collector."""
    return generate_latest(_registry(look)).decode()


@contextmanager
def listen(address: str, look: Callable[[], Iterable[Sample]]) -> Iterator[Callable[[], None]]:
    """Answer scrapes at ``127.0.0.1:PORT`` or ``[::1]:PORT`` while inside.

    Yields
    ------
    callable
        Waits indefinitely.

    Raises
    ------
    InputError
        If the address is not of this machine's loopback.
    AltmapError
        If it cannot be had.
    """
    match = _ADDRESS.fullmatch(address)
    try:
        host = ipaddress.ip_address(match[1].strip("[]")) if match else None
    except ValueError:
        host = None
    if match is None or host is None or not host.is_loopback or int(match[2]) > 65535:
        raise InputError(f"--listen {address!r}: need 127.0.0.1:PORT or [::1]:PORT, nothing else")
    try:
        server, thread = start_http_server(int(match[2]), str(host), _registry(look))
    except OSError as error:
        raise AltmapError(f"--listen {address}: {error.strerror}") from error
    try:
        yield thread.join
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _registry(look: Callable[[], Iterable[Sample]]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Gauges(look))
    return registry
