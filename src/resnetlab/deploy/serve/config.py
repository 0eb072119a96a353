"""The settings of a server. This file loads nothing heavy, so that the command line can read it quickly."""

import re
from dataclasses import dataclass
from typing import Literal

from resnetlab.core.errors import ConfigError, require, require_literals

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """How a bundle is served.

    Raises ``ConfigError`` for values that make no server.
    """

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of this machine."""
    port: int = 8080
    """Port to listen on; 0 takes a free one."""
    engine: Literal["onnx", "openvino", "int8"] = "onnx"
    """Exported format that computes."""
    max_batch: int = 8
    """Images that are computed at a time, of one request or of several."""
    max_wait_ms: float = 2.0
    """Milliseconds that an image waits for others to share its batch."""
    queue: int = 64
    """Images that each process holds, waiting or being computed; above it the answer is 503 with Retry-After."""
    max_body: str = "10MB"
    """Largest body of a request."""
    patience: float = 10.0
    """Seconds that a client may take to send the head of a request, and again for its body."""
    processes: int = 1
    """Processes on the one port."""
    threads: int = 0
    """Threads that compute in each process; 0 shares the cores among the processes."""

    def __post_init__(self) -> None:
        require_literals(self)
        require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        require(1 <= self.max_batch <= 1024, "max_batch", self.max_batch, "1 to 1024")
        require(0 <= self.max_wait_ms <= 1000, "max_wait_ms", self.max_wait_ms, "0 to 1000")
        require(self.max_batch <= self.queue <= 65536, "queue", self.queue, f"max_batch={self.max_batch} to 65536")
        require(0 < self.patience <= 3600, "patience", self.patience, "above 0, up to 3600 seconds")
        require(1 <= self.processes <= 256, "processes", self.processes, "1 to 256")
        require(0 <= self.threads <= 1024, "threads", self.threads, "0 to 1024")
        require(self.body_bytes >= 1, "max_body", self.max_body, "1 byte or more")

    @property
    def body_bytes(self) -> int:
        """``max_body`` in bytes. Raises ``ConfigError`` where it is no size."""
        found = re.fullmatch(r"(\d{1,12})(B|kB|MB|GB)?", self.max_body)
        if found is None:
            raise ConfigError(f"max_body={self.max_body!r} is no size; give one such as 500kB, 10MB or 1GB")
        return int(found[1]) * UNITS[found[2] or "B"]
