"""What a request costs, beside LitServe: ``python benchmarks/serve.py BUNDLE``, with ``pip install litserve==0.2.19``.

Both servers have the same network in ONNX Runtime, the same decoder, batches of up to 8 and 2 ms of waiting. Images are
the golden ones of the bundle; resnetlab takes them as the body, LitServe in base64 within JSON, as its examples do. So
many clients ask without pause, each on a connection of its own. Counted are the processor time of the server with all
its processes, which the client's own does not touch, its memory, and the time to an answer. The two take turns; of
``--turns`` the median counts.
"""

import argparse
import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.deploy.bundle import read_bundle

REQUESTS = {1: 400, 8: 1600, 64: 4800}
"""Requests of a turn, by the number of clients."""
BATCH, WAIT = 8, 0.002
SERVERS = ("resnetlab", "litserve")
RIVAL = Path(__file__).with_name("rival_litserve.py")
TICKS = os.sysconf("SC_CLK_TCK")


def command(server: str, bundle: Path, port: int) -> list[str]:
    """What starts a server."""
    if server == "litserve":
        return [sys.executable, str(RIVAL), str(bundle), str(port)]
    flags = ["--port", str(port), "--max-batch", str(BATCH), "--max-wait-ms", str(1000 * WAIT), "--queue", "256"]
    return [sys.executable, "-m", "resnetlab", "serve", str(bundle), "--threads", "1", *flags]


def bodies(server: str, bundle: Path) -> list[bytes]:
    """The requests, whole."""
    images = [path.read_bytes() for path in sorted((bundle / "golden").glob("*.png"))]
    if server == "litserve":
        images = [json.dumps({"image": base64.b64encode(image).decode()}).encode() for image in images]
    kind = "application/json" if server == "litserve" else "image/png"
    head = "POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"
    return [head.format(kind, len(body)).encode() + body for body in images]


async def ask(port: int, requests: list[bytes], clients: int, count: int) -> list[float]:
    """Seconds to each answer; every one must be 200."""
    left = iter(range(count))
    seconds: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            started = time.perf_counter()
            writer.write(requests[number % len(requests)])
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"\r\ncontent-length:")[2].split()[0]))
            seconds.append(time.perf_counter() - started)
            if not head.startswith(b"http/1.1 200"):
                raise RuntimeError(head.decode())
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds


def family(number: int) -> list[int]:
    """A process, and all that came from it."""
    found = [number]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def processor_seconds(number: int) -> float:
    """User and system time of the process and its children, those that have ended too."""
    total = 0
    for one in family(number):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15] if one == number else fields[11:13]))
    return total / TICKS


def memory(number: int) -> tuple[float, float]:
    """MiB of all processes: resident, and with pages that several share counted once."""
    resident = shared = 0
    for one in family(number):
        text = Path(f"/proc/{one}/smaps_rollup").read_text()
        resident += int(text.partition("\nRss:")[2].split()[0])
        shared += int(text.partition("\nPss:")[2].split()[0])
    return resident / 1024, shared / 1024


def measure(server: str, bundle: Path, port: int) -> dict[str, dict[str, float]]:
    """One turn, by the number of clients."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(server, bundle, port), env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    requests = bodies(server, bundle)
    try:
        for _ in range(600):
            try:
                asyncio.run(ask(port, requests, 8, 64))
                break
            except (OSError, RuntimeError, asyncio.IncompleteReadError):
                time.sleep(0.1)
        found = {}
        for clients, count in REQUESTS.items():
            before, started = processor_seconds(process.pid), time.perf_counter()
            seconds = asyncio.run(ask(port, requests, clients, count))
            wall, cost = time.perf_counter() - started, processor_seconds(process.pid) - before
            percentiles = quantiles(seconds, n=100)
            resident, proportional = memory(process.pid)
            found[str(clients)] = {
                "processor_ms": 1000 * cost / count,
                "requests_per_second": count / wall,
                "p50_ms": 1000 * percentiles[49],
                "p99_ms": 1000 * percentiles[98],
                "resident_mib": resident,
                "proportional_mib": proportional,
            }
        return found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    """Print the figures, and write them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="made with resnetlab export RUN --out BUNDLE --to onnx")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--turns", type=int, default=3, help="how often each server is started and asked")
    parser.add_argument("--port", type=int, default=8790)
    given = parser.parse_args()
    turns: dict[str, list[dict[str, dict[str, float]]]] = {server: [] for server in SERVERS}
    for turn in range(given.turns):
        for server in SERVERS:
            turns[server].append(measure(server, given.bundle, given.port + 2 * turn + SERVERS.index(server)))
    figures: dict[str, Any] = {}
    for server, found in turns.items():
        figures[server] = {
            clients: {name: median(one[clients][name] for one in found) for name in found[0][clients]}
            for clients in found[0]
        }
        for clients, row in figures[server].items():
            print(server, clients, *(f"{name} {value:.4g}" for name, value in row.items()), sep="  ")  # noqa: T201
    ours, rival = (figures[server] for server in SERVERS)
    ratios = {clients: rival[clients]["processor_ms"] / ours[clients]["processor_ms"] for clients in ours}
    print("times less processor time:", *(f"{clients}: {ratio:.2f}" for clients, ratio in ratios.items()))  # noqa: T201
    bundle = read_bundle(given.bundle)
    versions = {name: version(name) for name in ("litserve", "onnxruntime", "uvicorn", "pillow")}
    record = {
        "n": given.turns,
        "model": bundle.model,
        "side": bundle.preprocessing.side,
        "requests": REQUESTS,
        "batch": BATCH,
        "wait_ms": 1000 * WAIT,
        "servers": figures,
        "processor_time_ratio": ratios,
        "environment": describe_environment("cpu", threads=1) | versions,
    }
    if given.out:
        write_json(given.out, record)


if __name__ == "__main__":
    main()
