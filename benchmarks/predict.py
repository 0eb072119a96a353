"""``resnetlab predict`` on many files: memory, a kill, two ranks, and the speed beside timm's way of doing it.

``python benchmarks/predict.py --out docs/results/predict.json``, with timm and torchvision installed beside (``make
test-reference`` sets up such an environment). timm's way is what its ``inference.py`` does: ``create_dataset`` and
``create_loader`` with worker processes, softmax and the first classes, and a table of pandas at the end. Both answer
the same files with the same network, in turns, each in a process of its own, as users have it: in one process each
would find the heap as the other has shaped it. Starting worker processes counts; imports, and whatever else is done
once, do not, since each way answers a tenth of the files before.
"""

import argparse
import csv
import hashlib
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from signal import SIGKILL
from typing import Any

import numpy as np
import torch
from PIL import Image
from rivals import load_timm, load_torchvision

import resnetlab
from resnetlab import Recipe, TrainConfig, run_recipe
from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.data.config import DecodeConfig
from resnetlab.deploy.engines import open_predictor
from resnetlab.deploy.predict import Settings, Sources, network_digest, predict_into

SIDE, CLASSES, BATCH, WORKERS, TOP = 32, 10, 64, 2, 5


def make_files(folder: Path, count: int) -> None:
    """Digits of scikit-learn in a colour of noise, 48×48 pixels, each tenth a JPEG, in a folder for each class."""
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(0)
    for number in range(count):
        index = number % len(digits.target)
        place = folder / str(digits.target[index])
        place.mkdir(parents=True, exist_ok=True)
        grey = np.kron(digits.images[index], np.ones((6, 6)))[..., None] * rng.uniform(4, 14, 3)
        pixels = np.clip(grey + rng.normal(20, 8, (48, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number:05d}.{'png' if number % 10 else 'jpg'}")


def train(data: Path, out: Path) -> None:
    """The network that answers: one epoch on the files."""
    training = TrainConfig(epochs=1, batch_size=64, lr=0.1, device="cpu")
    decode = DecodeConfig(image_size=SIDE)
    run_recipe(Recipe(model="cifar_resnet8", data=f"folder:{data}", decode=decode, training=training), out, page=False)


def command(run: Path, files: Path, out: Path) -> list[str]:
    """The words of the command."""
    return ["resnetlab", "predict", str(run), str(files), "--out", str(out), "--workers", str(WORKERS)]


def measured(words: list[str]) -> int:
    """Run the command in a process of its own; the most bytes that it and its workers held together at a time, pages
    that several share counted once."""
    process, most = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL), 0
    while process.poll() is None:
        most = max(most, held(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} failed")
    return most


def held(number: int) -> int:
    """Bytes of a process and of those that it started; 0 for one that is gone."""
    try:
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        own = re.search(r"\nPss:\s+(\d+) kB", Path(f"/proc/{number}/smaps_rollup").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (1024 * int(own[1]) if own else 0) + sum(held(int(child)) for child in children)


def killed_at(words: list[str], out: Path, share: float, whole: int) -> float:
    """Kill the command once its journal has that share of ``whole`` bytes; the share that it had."""
    process = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL)
    journal = out.with_name(f"{out.name}.partial")
    while not journal.exists() or journal.stat().st_size < share * whole:
        time.sleep(0.01)
    process.send_signal(SIGKILL)
    process.wait()
    return journal.stat().st_size / whole


def sha256(path: Path) -> str:
    """The sum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def same_rows(run: Path, files: Path, place: Path) -> dict[str, Any]:
    """Memory with a tenth of the files and with all; whether a kill and two ranks change a byte."""
    small = place / "small"
    some = sorted(files.rglob("*.*"))[::10]
    for path in some:
        (small / path.parent.name).mkdir(parents=True, exist_ok=True)
        (small / path.parent.name / path.name).symlink_to(path)
    memory = {
        str(len(some)): measured(command(run, small, place / "small.csv")),
        str(len(some) * 10): measured(command(run, files, place / "whole.csv")),
    }
    whole = place / "whole.csv"
    cut = command(run, files, place / "cut.csv")
    shares = [killed_at(cut, place / "cut.csv", share, whole.stat().st_size) for share in (0.2, 0.7)]
    measured(cut)
    measured(["torch.distributed.run", "--nproc-per-node", "2", "-m", *command(run, files, place / "two.csv")])
    return {
        "peak_bytes": memory,
        "killed_when_done": shares,
        "same_after_kills": sha256(place / "cut.csv") == sha256(whole),
        "same_with_two_ranks": sha256(place / "two.csv") == sha256(whole),
        "sha256": sha256(whole),
    }


def timm_way(run: Path, files: Path, out: Path) -> None:
    """What timm's inference.py does, with the same network."""
    import pandas

    # timm imports torchvision, which has to stay.
    _torchvision, data = load_torchvision(), load_timm().data
    trained = resnetlab.load(run, device="cpu")
    mean, std = (
        [value / 255 for value in values] for values in (trained.preprocessing.mean, trained.preprocessing.std)
    )
    loader = data.create_loader(
        data.create_dataset(root=str(files), name=""),
        input_size=(3, SIDE, SIDE),
        batch_size=BATCH,
        use_prefetcher=True,
        num_workers=WORKERS,
        mean=mean,
        std=std,
        interpolation="bilinear",
        crop_pct=1.0,
        device=torch.device("cpu"),
    )
    probabilities, indices = [], []
    with torch.inference_mode():
        for images, _ in loader:
            found, index = trained.net(images).softmax(-1).topk(TOP)
            probabilities.append(found.numpy())
            indices.append(index.numpy())
    names = loader.dataset.filenames(basename=False)
    table = {"filename": names}
    for k in range(TOP):
        table[f"label_{k}"] = np.array(trained.classes)[np.concatenate(indices)[:, k]]
        table[f"prob_{k}"] = np.concatenate(probabilities)[:, k]
    pandas.DataFrame(table).to_csv(out, index=False)


def our_way(run: Path, files: Path, out: Path) -> None:
    """What ``resnetlab predict --out`` does."""
    out.unlink(missing_ok=True)
    settings = Settings(top=TOP, batch_size=BATCH, workers=WORKERS)
    predictor = open_predictor(run, "torch")
    predict_into(out, predictor, network_digest(run, "best"), Sources(given=(str(files),)), settings)


def take(way: str, place: Path) -> None:
    """One turn, in this process: its seconds, on standard output."""
    go, out = (our_way if way == "ours" else timm_way), place / f"{way}.csv"
    go(place / "run", place / "small", out)
    started = time.perf_counter()
    go(place / "run", place / "files", out)
    print(time.perf_counter() - started)  # noqa: T201


def speed(place: Path, count: int, turns: int) -> dict[str, Any]:
    """Files a second of both ways, in turns, and how often their answers agree."""

    def seconds(way: str) -> float:
        words = [sys.executable, __file__, "--take", way, "--place", str(place)]
        return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])

    ways = ("ours", "timm")
    found = {way: np.empty(turns) for way in ways}
    for turn in range(turns):
        for way in ways if turn % 2 == 0 else ways[::-1]:
            found[way][turn] = seconds(way)
    with (place / "ours.csv").open() as one, (place / "timm.csv").open() as other:
        answers = {row["path"]: row["answer"] for row in csv.DictReader(one)}
        agree = [answers[str(place / "files" / row["filename"])] == row["label_0"] for row in csv.DictReader(other)]
    low, middle, high = np.quantile(found["timm"] / found["ours"], (0.25, 0.5, 0.75)).tolist()
    return {
        "turns": turns,
        "files_per_second": {name: count / float(np.median(values)) for name, values in found.items()},
        "ours_over_timm": {"quartile_1": low, "median": middle, "quartile_3": high},
        "same_answers": float(np.mean(agree)),
    }


def main() -> None:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--take", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    if settings.take:
        take(settings.take, settings.place)
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        place = Path(folder)
        make_files(place / "files", settings.files)
        train(place / "files", place / "run")
        found = {
            "files": settings.files,
            "network": "cifar_resnet8",
            "workers": WORKERS,
            **same_rows(place / "run", place / "files", place),
            "speed": speed(place, settings.files, settings.turns),
            "environment": describe_environment("cpu", threads=1) | {"timm": version("timm")},
        }
    print(found)  # noqa: T201
    if settings.out:
        write_json(settings.out, found)


if __name__ == "__main__":
    main()
