"""What a server counts, for Prometheus; several processes add up."""

import os
from functools import cache

from resnetlab.core.errors import load_extra

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names prometheus_client the folder where processes put their counts together."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counts of one process."""

    def __init__(self) -> None:
        client = load_extra("prometheus_client", "serve", "serve")
        client.disable_created_metrics()
        self._client = client
        self._registry = client.CollectorRegistry()
        own = {"registry": self._registry}
        requests = client.Counter("resnetlab_requests", "Requests by route and code", ["route", "code"], **own)
        seconds = client.Histogram(
            "resnetlab_request_seconds", "From the head to the answer", ["route"], buckets=SECONDS, **own
        )
        self.batch = client.Histogram("resnetlab_batch_images", "Images computed at a time", buckets=BATCHES, **own)
        self.held = client.Gauge(
            "resnetlab_held_images", "Images waiting or being computed", multiprocess_mode="livesum", **own
        )
        self.ready = client.Gauge(
            "resnetlab_ready_processes",
            "Processes whose golden images passed",
            multiprocess_mode="livesum",
            **own,
        )
        # Finding a label takes longer than counting.
        self._requests = cache(lambda route, code: requests.labels(route, code))
        self._seconds = cache(lambda route: seconds.labels(route))

    def count(self, route: str, code: int, seconds: float) -> None:
        """One answer."""
        self._requests(route, code).inc()
        self._seconds(route).observe(seconds)

    def page(self) -> bytes:
        """The counts of all processes, in the text format of Prometheus."""
        registry = self._registry
        if FOLDER in os.environ:
            registry = self._client.CollectorRegistry()
            load_extra("prometheus_client.multiprocess", "serve", "serve").MultiProcessCollector(registry)
        page: bytes = self._client.generate_latest(registry)
        return page


def forget_process(number: int | None) -> None:
    """What a process that has ended held, and whether it was ready, no longer count; its requests do."""
    load_extra("prometheus_client.multiprocess", "serve", "serve").mark_process_dead(number)
