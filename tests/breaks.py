"""``python -m tests.breaks [NAME …]`` breaks the code on purpose, a line at a time, and runs tests that must fail.

Each break is made in a copy of ``src``. A break that no test finds is a fault of the tests; so is one that a test finds
by an error of its own, which is why the tests must run to their end (exit code 1) and pass on the copy unbroken.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = Path("src/resnetlab")


@dataclass(frozen=True)
class Break:
    """``old`` stands once in ``file``, a path in the package; with ``new`` in its place one of ``tests`` fails."""

    file: str
    old: str
    new: str
    tests: str


BREAKS = {
    "optimizer state not restored": Break(
        "train/state.py",
        "restore_optimizer(self.net, self.optimizer,",
        "(lambda *_: None)(self.net, self.optimizer,",
        "tests/train/test_loop.py",
    ),
    "warm_since not restored": Break(
        "train/state.py",
        "self.warm_since = list(checkpoint.history), checkpoint.step, checkpoint.warm_since",
        "self.warm_since = list(checkpoint.history), checkpoint.step, None",
        "tests/train/test_schedule.py",
    ),
    "Holm without monotony": Break(
        "core/stats.py",
        "least = max(least, min(1.0, (len(values) - passed) * values[place]))",
        "least = min(1.0, (len(values) - passed) * values[place])",
        "tests/core/test_stats.py",
    ),
    "Holm's factor one less": Break(
        "core/stats.py", "(len(values) - passed) *", "(len(values) - passed - 1) *", "tests/core/test_stats.py"
    ),
    "gradient norm as a sum of norms": Break(
        "train/gradients.py",
        "torch.stack([tensor.detach().double().norm() for tensor in tensors]).norm()",
        "torch.stack([tensor.detach().double().norm() for tensor in tensors]).sum()",
        "tests/train/test_gradients.py",
    ),
    "lesion one block off": Break(
        "diagnostics/lesion.py",
        "dropped=[measure([name], drop_blocks(net, [name])) for name in movable],",
        "dropped=[measure([name], drop_blocks(net, [movable[n - 1]])) for n, name in enumerate(movable)],",
        "tests/diagnostics/test_lesion.py",
    ),
    "stochastic depth unscaled": Break(
        "models/layers.py", "return x * kept / (1 - self.p)", "return x * kept", "tests/models/test_families.py"
    ),
    "mixup's weight reversed": Break(
        "data/transforms.py",
        "torch.lerp(images, others, 1 - mixture.weight)",
        "torch.lerp(images, others, mixture.weight)",
        "tests/data/test_transforms.py",
    ),
    "EXIF 5 and 7 exchanged": Break(
        "data/decode.py",
        "5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1)",
        "7: (1, 0, 0), 6: (1, 0, 1), 5: (1, 1, 1)",
        "tests/data/test_decode.py",
    ),
    "EMA copies statistics": Break(
        "train/optim.py",
        "[name for name, value in ours.items() if value.is_floating_point()]",
        "[name for name in ours if isinstance(theirs[name], nn.Parameter)]",
        "tests/train/test_ema.py",
    ),
    "EMA leaves statistics as they are": Break(
        "train/optim.py",
        "share = 1 - min(self.decay, (1 + step) / (10 + step))",
        "share = 1 - min(self.decay, (1 + step) / (10 + step))\n"
        "        self._averaged = [(e, w) for e, w in self._averaged if isinstance(w, nn.Parameter)]",
        "tests/train/test_ema.py",
    ),
    "cosine ends a step early": Break(
        "train/optim.py",
        "(step - warmup) / max(1.0, total - warmup)",
        "(step - warmup) / max(1.0, total - 1 - warmup)",
        "tests/train/test_schedule.py tests/train/test_optim.py",
    ),
    "one-cycle ends a step late": Break(
        "train/optim.py",
        "(step - top) / max(1.0, total - 1 - top)",
        "(step - top) / max(1.0, total - top)",
        "tests/train/test_schedule.py tests/train/test_optim.py",
    ),
    "norms decay": Break(
        "train/optim.py",
        "rest = config.weight_decay if config.decay_all else 0.0",
        "rest = config.weight_decay",
        "tests/train/test_optim.py",
    ),
    "standard deviation without Bessel": Break(
        "core/stats.py",
        "sd=stdev(values)",
        "sd=stdev([*values, fmean(values)])",
        "tests/core/test_floor.py",
    ),
    "interval one-sided": Break(
        "core/stats.py",
        "ttest_rel(first, second).confidence_interval(level)",
        "ttest_rel(first, second).confidence_interval(2 * level - 1)",
        "tests/core/test_stats.py",
    ),
    "bootstrap without acceleration": Break(
        "core/stats.py", 'method="BCa"', 'method="percentile"', "tests/core/test_stats.py"
    ),
    "Bonferroni dropped": Break(
        "study/degradation.py",
        "2 * (1 - LEVEL) / max(1, len(pairs))",
        "2 * (1 - LEVEL)",
        "tests/study/test_degradation.py",
    ),
    "landscape's mixed derivative": Break(
        "diagnostics/landscape.py",
        "np.hypot((across - along) / 2, mixed)",
        "np.hypot((across - along) / 2, 0 * mixed)",
        "tests/diagnostics/test_landscape.py",
    ),
    "signal from the first output": Break(
        "diagnostics/signal.py", "(first.input_rms, last", "(first.output_rms, last", "tests/diagnostics/test_signal.py"
    ),
    "zero-pad sides exchanged": Break(
        "models/shortcuts.py",
        "[self.front, self.back])",
        "[self.back, self.front])",
        "tests/models/test_shortcuts.py",
    ),
    "sign of depth pairs": Break(
        "study/degradation.py",
        "for depth in (deep, shallow)]",
        "for depth in (shallow, deep)]",
        "tests/study/test_degradation.py",
    ),
    "ties go to the later epoch": Break(
        "records/run.py",
        "else (error, loss, record.epoch)",
        "else (error, loss, -record.epoch)",
        "tests/records tests/train/test_checkpoint_manager.py",
    ),
    "CIFAR-100's coarse label": Break(
        "data/cifar.py",
        "rows[:, version.label_bytes - 1]",
        "rows[:, 0]",
        "tests/data/test_cifar.py",
    ),
    "crop's axes exchanged": Break(
        "data/transforms.py",
        "offsets[:, 0], offsets[:, 1]]",
        "offsets[:, 1], offsets[:, 0]]",
        "tests/data/test_transforms.py",
    ),
    "answers of a batch exchanged": Break(
        "deploy/serve/batching.py",
        "zip(batch, answers, strict=True)",
        "zip(batch, answers[::-1], strict=True)",
        "tests/deploy/serve/test_batching.py",
    ),
    "queue without bound": Break(
        "deploy/serve/batching.py",
        "if self._held + images > self._queue:",
        "if False:",
        "tests/deploy/serve/test_batching.py",
    ),
    "values above white are taken": Break(
        "deploy/serve/protocol.py", " or values.max() > 255", "", "tests/deploy/serve/test_protocol.py"
    ),
    "slow clients are waited for": Break(
        "deploy/serve/deadlines.py", "self.refuse(408)", "self.begin()", "tests/deploy/serve/test_server.py"
    ),
    "no fsync of a file": Break(
        "core/files.py",
        "os.fsync(stream.fileno())\n            os.replace",
        "stream.fileno()\n            os.replace",
        "tests/core/test_files.py",
    ),
    "data of a page end its script": Break(
        "report/page.py", r'.replace("<", r"\u003c")', "", "tests/report/test_explore.py"
    ),
    "errors side by side in fractions": Break(
        "report/study/explore.py",
        "_rounded(100 * final.trained.error, 6)",
        "_rounded(final.trained.error, 6)",
        "tests/report/test_explore.py",
    ),
    "long curves lose their last point": Break(
        "report/study/explore.py", "for k in range(most)", "for k in range(most - 1)", "tests/report/test_explore.py"
    ),
    "gradients after training shown as before": Break(
        "report/study/explore.py",
        '"start": _block_curve(run.record.gradients_start',
        '"start": _block_curve(run.record.gradients_end',
        "tests/report/test_explore.py",
    ),
}


def broken(name: str, place: Path) -> Path:
    """A copy of the package under ``place`` with that break in it; an empty name gives it unbroken."""
    shutil.copytree(ROOT / PACKAGE, place / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    if name:
        one = BREAKS[name]
        path = place / PACKAGE / one.file
        path.write_text(path.read_text().replace(one.old, one.new))
    return place / PACKAGE.parent


def exit_code(source: Path, tests: Iterable[str]) -> int:
    """What pytest returns for the tests with the package from ``source``, stopped at the first failure."""
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.breaks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default: {'; '.join(BREAKS)}")
    names = parser.parse_args().names or list(BREAKS)
    found = 0
    with tempfile.TemporaryDirectory() as place:
        tests = sorted({test for name in names for test in BREAKS[name].tests.split()})
        if code := exit_code(broken("", Path(place) / "whole"), tests):
            sys.stderr.write(f"the tests fail on the code as it is: exit code {code}\n")
            return 1
        for number, name in enumerate(names):
            code = exit_code(broken(name, Path(place) / str(number)), BREAKS[name].tests.split())
            found += code == 1
            sys.stderr.write(f"{'found' if code == 1 else f'NOT FOUND, exit code {code}'}: {name}\n")
    sys.stdout.write(f"{found} of {len(names)} found\n")
    return int(found < len(names))


if __name__ == "__main__":
    sys.exit(main())
