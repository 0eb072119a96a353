"""What ``plan`` predicts of a run's memory beside what training takes: ``python benchmarks/memory_plan.py``.

Each setting trains for two steps in a fresh process, traces its gradients between them, and tells its peak beyond what
it held before it built the network. glibc gives freed tensors back there (``MALLOC_MMAP_THRESHOLD_``), so that the peak
is what is in use and not what gaps in the heap cost.
"""

import argparse
import sys
from pathlib import Path

from resnetlab.cli.memory import HEAPS, Plan, measure_apart
from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json

SETTINGS = [
    Plan(name="cifar_resnet20", batch_size=128),
    Plan(name="cifar_resnet20", batch_size=1024, accumulate=16),
    Plan(name="cifar_resnet20", batch_size=256, precision="bf16"),
    Plan(name="cifar_resnet110", batch_size=64),
    Plan(name="cifar_resnet110", batch_size=64, checkpoint_every=3),
    Plan(name="resnet18", batch_size=16, ema=True),
    Plan(name="resnet50", batch_size=16, accumulate=2, precision="bf16", ema=True),
    Plan(name="resnet50", batch_size=8, checkpoint_every=1, optimizer="adamw"),
]
USUAL = Plan(name="")


def described(asked: Plan) -> str:
    """The setting as the words of the command."""
    words = [asked.name]
    for name, value in vars(asked).items():
        if (value != getattr(USUAL, name) and name != "name") or name == "batch_size":
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return " ".join(words)


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path, help="JSON file of the figures")
    asked = words.parse_args()
    rows = []
    for setting in SETTINGS:
        row = {"setting": described(setting), "predicted": setting.predict().total}
        row["measured"] = measure_apart(setting, HEAPS["freed memory given back"])
        row["usual_heap"] = measure_apart(setting, HEAPS["the usual heap"])
        rows.append(row)
        ratio = row["predicted"] / row["measured"]
        sizes = (f"{row[key] / 2**20:8.1f}" for key in ("predicted", "measured", "usual_heap"))
        sys.stdout.write(f"{row['setting']:90}{''.join(sizes)}  {ratio:.2f}\n")
        sys.stdout.flush()
    if asked.out:
        write_json(asked.out, {"settings": rows, "environment": describe_environment("cpu", 1)})


if __name__ == "__main__":
    main()
