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
    "neighbours twice as far": Break(
        "train/moments.py", "images + distance * delta", "images + 2 * distance * delta", "tests/train/test_moments.py"
    ),
    "cosine without norms": Break(
        "train/moments.py",
        "(a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))",
        "(a * b).sum(dim=1) / a.norm(dim=1)",
        "tests/train/test_moments.py",
    ),
    "entropy of squares": Break(
        "train/moments.py", "share = singular / total", "share = (singular / total) ** 2", "tests/train/test_moments.py"
    ),
    "rank of what is not centred": Break(
        "train/moments.py", "rows - rows.mean(dim=0)", "rows - 0 * rows.mean(dim=0)", "tests/train/test_moments.py"
    ),
    "halves that overlap": Break(
        "train/gradients.py", "slice(half, 2 * half)", "slice(half - 1, 2 * half - 1)", "tests/train/test_moments.py"
    ),
    "change over the new weights": Break(
        "train/gradients.py",
        "norm_of(group) for name, group in before.items()}",
        "norm_of(group) for name, group in after.items()}",
        "tests/train/test_moments.py",
    ),
    "change of the average": Break(
        "train/gradients.py",
        "weights_by_block(trained or net)",
        "weights_by_block(net)",
        "tests/train/test_trace.py",
    ),
    "neighbours compared with themselves": Break(
        "diagnostics/shattering.py",
        "near = gradients(neighbours(images, seed, distance))",
        "near = gradients(neighbours(images, seed, 0 * distance))",
        "tests/diagnostics/test_shattering.py",
    ),
    "common share without its images": Break(
        "diagnostics/rank.py",
        "finite(len(output) * mean / whole)",
        "finite(mean / whole)",
        "tests/diagnostics/test_rank.py",
    ),
    "ties count whole": Break("study/prediction.py", "+ 0.5 * (bad", "+ 1.0 * (bad", "tests/study/test_prediction.py"),
    "bootstrap over runs": Break(
        "study/prediction.py",
        "places = sorted({case.condition for case in cases})",
        "cases = [Case(failed=c.failed, condition=n, depth=c.depth, value=c.value) for n, c in enumerate(cases)]\n"
        "    places = sorted({case.condition for case in cases})",
        "tests/study/test_prediction.py",
    ),
    "threshold chosen on the depth itself": Break(
        "study/prediction.py",
        "limit = best_threshold(others, higher)",
        "limit = best_threshold(ours, higher)",
        "tests/study/test_prediction.py",
    ),
    "direction chosen on the depth itself": Break(
        "study/prediction.py",
        "higher = area >= 0.5",
        "higher = (auc(ours) or 0.0) >= 0.5",
        "tests/study/test_prediction.py",
    ),
    "a batch compared with itself": Break(
        "diagnostics/agreement.py",
        "in combinations(gradients, 2)]",
        "in zip(gradients, gradients, strict=True)]",
        "tests/diagnostics/test_agreement.py",
    ),
    "step without clipping": Break(
        "diagnostics/step.py",
        "if config.clip_norm is not None:",
        "if False:",
        "tests/diagnostics/test_step.py",
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
    "orthogonal without its signs": Break(
        "models/starts.py",
        "q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)",
        "q = q * 1",
        "tests/models/test_starts.py",
    ),
    "delta-orthogonal beside the centre": Break(
        "models/starts.py", "prod(shape[2:]) // 2] = tap", "0] = tap", "tests/models/test_starts.py"
    ),
    "groups of a delta-orthogonal weight forgotten": Break(
        "models/starts.py",
        "orthogonal(normal((groups, shape[0] // groups, shape[1])))",
        "orthogonal(normal(shape[:2]))",
        "tests/models/test_starts.py",
    ),
    "dirac outside of branches": Break(
        "models/starts.py", 'if place == "branch" else he', "", "tests/models/test_starts.py"
    ),
    "dirac's noise unscaled": Break("models/starts.py", "+ dirac_noise * he", "+ he", "tests/models/test_starts.py"),
    "mirror without its minus": Break(
        "models/starts.py",
        'weight if place == "head" else torch.cat([weight, -weight])',
        'weight if place == "head" else torch.cat([weight, weight])',
        "tests/models/test_starts.py",
    ),
    "lsuv goes on with the unscaled output": Break(
        "models/lsuv.py", "output = layer.forward(*given)", "break", "tests/models/test_starts.py"
    ),
    "lsuv divides by the variance": Break(
        "models/lsuv.py", "div_(variance**0.5)", "div_(variance)", "tests/models/test_starts.py"
    ),
    "lsuv leaves norms moved": Break(
        "models/lsuv.py", "norm.reset_running_stats()", "pass", "tests/models/test_starts.py"
    ),
    "C map without its square": Break(
        "models/tailored.py", "(1 - slope) ** 2 /", "(1 - slope) /", "tests/models/test_tailored.py"
    ),
    "tailored ReLU without its gain": Break(
        "models/tailored.py", "sqrt(2 / (1 + slope**2))", "sqrt(2)", "tests/models/test_tailored.py"
    ),
    "slope solved a layer short": Break(
        "models/tailored.py",
        "c_map(0, slope, depth) - eta",
        "c_map(0, slope, depth - 1) - eta",
        "tests/models/test_tailored.py",
    ),
    "slope not kept by surgery": Break(
        "models/surgery.py",
        "config = replace(config, tailored_slope=config.slope)",
        "pass",
        "tests/models/test_tailored.py",
    ),
    "tailored net taken for one of ReLUs": Break(
        "models/lookalikes.py",
        'slope = config.slope if isinstance(config, ResidualConfig) and config.init == "tat" else None',
        "slope = None",
        "tests/models/test_tailored.py",
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
    "LARS without the decay in its ratio": Break(
        "train/normalised.py", "(theirs + decay * ours)", "theirs", "tests/train/test_normalised.py"
    ),
    "LARS adapts norms": Break("train/optim.py", '"adapts": False', '"adapts": True', "tests/train/test_normalised.py"),
    "LARS divides by zero": Break(
        "train/normalised.py", "(ours > 0) & (theirs > 0)", "ours >= 0", "tests/train/test_normalised.py"
    ),
    "norm of squares that underflow": Break(
        "train/normalised.py",
        '    largest = torch._foreach_norm(tensors, float("inf"))\n'
        "    return list(torch._foreach_mul(torch._foreach_norm(scaled(tensors)), largest))",
        "    return list(torch._foreach_norm(tensors))",
        "tests/train/test_normalised.py",
    ),
    "normalised gradients over their largest number": Break(
        "train/normalised.py",
        "positive(torch._foreach_norm(units))",
        "torch._foreach_norm(units, float('inf'))",
        "tests/train/test_normalised.py",
    ),
    "momentum before the gradient is normalised": Break(
        "train/normalised.py",
        "torch._foreach_add_(buffers, units)",
        "torch._foreach_add_(buffers, gradients)",
        "tests/train/test_normalised.py",
    ),
    "Signum takes the sign first": Break(
        "train/normalised.py",
        "torch._foreach_lerp_(averages, gradients,",
        "torch._foreach_lerp_(averages, torch._foreach_sign(gradients),",
        "tests/train/test_normalised.py",
    ),
    "sign of the weights": Break(
        "train/normalised.py",
        "torch._foreach_sign(averages)",
        "torch._foreach_sign(weights)",
        "tests/train/test_normalised.py",
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
    "seeds that judge choose": Break(
        "study/plan.py", "study.recipe.seed + TUNING_SEEDS", "study.recipe.seed", "tests/study/test_tuning.py"
    ),
    "judged at the recipe's own value": Break(
        "study/plan.py", "{**values, **chosen.get(place, {})}", "values", "tests/study/test_tuning.py"
    ),
    "larger of equal values chosen": Break(
        "study/tuning.py", "min(range(len(tried)),", "min(range(len(tried) - 1, -1, -1),", "tests/study/test_tuning.py"
    ),
    "tuning leaves out what diverged": Break(
        "study/tuning.py", "if record.final else 1.0 for", "if record.final else 0.0 for", "tests/study/test_tuning.py"
    ),
    "band where some runs train": Break(
        "study/tuning.py",
        "tried[number].trained == tried[number].n",
        "tried[number].trained > 0",
        "tests/study/test_tuning.py",
    ),
    "band over a gap": Break(
        "study/tuning.py",
        "len(list(takewhile(every, range(best - 1,",
        "len(list(filter(every, range(best - 1,",
        "tests/study/test_tuning.py",
    ),
    "judging begins before tuning has ended": Break(
        "study/tuning.py", "if len(ended) < len(planned):", "if planned and not ended:", "tests/study/test_tuning.py"
    ),
    "settings of every study say that it tunes": Break(
        "study/config.py", 'if study.tune or "tune" not in name', "if name", "tests/study/test_tuning.py"
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
    "gate not taken from one": Break(
        "models/gates.py", "(1 - gate) * carried", "gate * carried", "tests/models/test_gates.py"
    ),
    "exclusive gate on the shortcut alone": Break(
        "models/gates.py",
        "(gate * branch if self.exclusive else branch)",
        "branch",
        "tests/models/test_gates.py",
    ),
    "dropout on the shortcut rescaled": Break(
        "models/gates.py",
        "(1 - self.p) * F.dropout",
        "F.dropout",
        "tests/models/test_gates.py",
    ),
    "gate's bias starts at zero": Break(
        "models/gates.py", "module.layer.bias, module.start)", "module.layer.bias, 0.0)", "tests/models/test_gates.py"
    ),
    "ReZero starts at one": Break(
        "models/blocks.py", 'in ("rezero", "skipinit")', 'in ("skipinit",)', "tests/models/test_gates.py"
    ),
    "probe before the gate": Break(
        "diagnostics/probes.py",
        "handles.append(block.gate.register_forward_hook(self._keep_weighed))",
        "pass",
        "tests/models/test_gates.py",
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
