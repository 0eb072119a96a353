"""A diagnosis of one network, analysis by analysis.

Its folder holds ``diagnosis.json``, from which everything that is printed and drawn is made, and ``report.html``.
"""

import shlex
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from resnetlab.core.config import command_of
from resnetlab.core.environment import describe_environment
from resnetlab.core.errors import ConfigError
from resnetlab.core.files import check_place, require_vacant
from resnetlab.core.serialize import as_plain, write_record
from resnetlab.diagnostics.config import DiagnosisConfig
from resnetlab.diagnostics.context import Context, Progress, context_of
from resnetlab.diagnostics.load import DiagnosedNet, in_memory, load_plain, load_source
from resnetlab.records.diagnosis import ANALYSES, DIAGNOSIS, Analysis, Diagnosis, Finding, NetResult
from resnetlab.records.study_diagnosis import STUDY_DIAGNOSIS

if TYPE_CHECKING:
    from torch import nn

    from resnetlab.data.torch_datasets import OwnData

HOMES: dict[Analysis, str] = {name: f"resnetlab.diagnostics.{name}" for name in ANALYSES}
"""Where each analysis is. One is loaded when it is asked for, and loads none of those that were not."""

OF_SOURCES = {"data", "model", "shortcut", "options", "checkpoint", "split_seed", "decode", "device"}
"""Settings that say where a network and its images come from."""


class AnalysisModule(Protocol):
    """What the file of an analysis has, beside a ``judge`` that gives its verdict and the ``RULE`` of it.

    ``COMPARED`` are the networks that it is measured on as well, where they are there: the same net at initialisation,
    and its plain counterpart.
    """

    COMPARED: Collection[Literal["initial", "plain"]]

    def applies(self, net: DiagnosedNet, context: Context) -> str | None:
        """None, or why the analysis tells nothing of this network. Raises ``ConfigError`` for wrong settings."""

    def measure(self, net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
        """``result`` with what the analysis measures; the network is left as it was."""

    def explain(self, diagnosis: Diagnosis) -> Finding:
        """The numbers of a diagnosis in plain language."""


def analysis(name: Analysis) -> AnalysisModule:
    """The analysis of that name."""
    return cast("AnalysisModule", import_module(HOMES[name]))


@dataclass(frozen=True, kw_only=True)
class Nets:
    """The network that is asked about, and its plain counterpart where one was given."""

    asked: DiagnosedNet
    plain: DiagnosedNet | None = None


def diagnose(
    net: "nn.Module",
    data: "OwnData",
    what: str | Sequence[str] = "all",
    *,
    plain: "nn.Module | None" = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Diagnosis:
    """The diagnosis of a network in memory, on the device that it lies on.

    ``net`` is any module that maps images ``(N, C, H, W)`` to logits and holds ``ResidualBlock``s. ``data`` is a set of
    images, a Dataset or DataLoader of (image, label) or a pair of them (train, test), or a pair of images and labels
    ``(N,)``: of uint8, which are standardised by their own statistics, or of floats, which go into the network as they
    are. ``plain`` is its plain counterpart. ``settings`` are those of
    ``DiagnosisConfig``, such as ``images=500``. Nothing of the network is changed.

    >>> resnetlab.diagnose(net, (images, labels), what=("residuals", "lesion")).findings

    Raises ``ConfigError`` where nothing that was asked for applies, as without blocks, and for wrong settings.
    """
    alien = sorted(OF_SOURCES & settings.keys())
    if alien:
        raise ConfigError(
            f"{', '.join(alien)} is not possible for a network in memory, which is as it is; leave it out"
        )
    settings["image"] = tuple(map(Path, settings.get("image", ())))
    config = DiagnosisConfig(what=(what,) if isinstance(what, str) else tuple(what), **settings)  # type: ignore[arg-type]
    asked = in_memory(net, data)
    nets = Nets(asked=asked, plain=None if plain is None else in_memory(plain, asked.data))
    return run_analyses(nets, config, progress, source=asked.name, command="")


def diagnose_source(source: str, config: DiagnosisConfig, progress: Progress | None = None) -> Diagnosis:
    """The diagnosis of ``source``: the folder of a run, a file of weights (with ``config.model``), or a network's name.

    Nothing of the source is changed.

    Raises ``ConfigError`` for an unknown name, for an image or layer that is not there, and where nothing that was
    asked for applies; ``CheckpointError`` and ``DataError`` for what cannot be read.
    """
    from resnetlab.train.prepare import pick_device

    device = pick_device(config.device)
    asked = load_source(source, config).to(device)
    plain = load_plain(config.plain, config.checkpoint, asked).to(device) if config.plain else None
    command = diagnose_command(source, config)
    return run_analyses(Nets(asked=asked, plain=plain), config, progress, source=source, command=command)


def run_analyses(
    nets: Nets, config: DiagnosisConfig, progress: Progress | None, *, source: str, command: str
) -> Diagnosis:
    """Every analysis that was asked for and that applies: measured, then explained."""
    import torch

    started = perf_counter()
    asked, context = nets.asked, context_of(nets.asked, config, progress)
    chosen, notes = applicable(asked, context)
    net = measure_net(asked, context, chosen)
    before = [name for name in chosen if asked.run and "initial" in analysis(name).COMPARED]
    beside = [name for name in chosen if nets.plain and "plain" in analysis(name).COMPARED]
    diagnosis = Diagnosis(
        source=source,
        command=command,
        split=asked.data.reported_split,
        batch=len(context.batch[1]),
        net=net,
        initial=measure_net(asked.at_start(), context, before) if before else None,
        plain=measure_net(nets.plain, context, beside) if nets.plain else None,
        findings=[],
        notes=[*asked.data.notes, *asked.notes, *notes],
        data=asked.data.fingerprint,
        environment=describe_environment(str(asked.device), torch.get_num_threads()),
        seconds=perf_counter() - started,
    )
    return replace(diagnosis, findings=[analysis(name).explain(diagnosis) for name in chosen])


def applicable(net: DiagnosedNet, context: Context) -> tuple[list[Analysis], list[str]]:
    """The analyses that were asked for and apply, and a note on those that do not.

    Raises ``ConfigError`` where none does.
    """
    reasons = {name: analysis(name).applies(net, context) for name in context.config.analyses}
    chosen = [name for name, reason in reasons.items() if reason is None]
    left_out: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if reason is not None:
            left_out.setdefault(reason, []).append(name)
    notes = [f"{', '.join(names)} left out: {reason}" for reason, names in left_out.items()]
    if not chosen:
        raise ConfigError(f"nothing that was asked for applies to {net.name}: {'; '.join(notes)}")
    return chosen, notes


def measure_net(net: DiagnosedNet, context: Context, chosen: Sequence[Analysis]) -> NetResult:
    """What those of the ``chosen`` analyses that apply measure on one network."""
    result = NetResult(
        model=net.name,
        state=net.state,
        parameters=sum(parameter.numel() for parameter in net.net.parameters()),
        plain=not net.has_shortcuts,
    )
    for name in chosen:
        if analysis(name).applies(net, context) is None:
            result = analysis(name).measure(net, context, result)
    return result


def write_diagnosis(diagnosis: Diagnosis, out: Path) -> Path:
    """Write the record and its page to ``out``; the path of the page."""
    from resnetlab.report.diagnosis.page import write_diagnosis_report
    from resnetlab.report.study.page import FIGURES

    write_record(out / DIAGNOSIS, diagnosis)
    # One folder tells of one diagnosis: that of a study, which was here before, would be taken for this one.
    if (out / STUDY_DIAGNOSIS).is_file():
        (out / STUDY_DIAGNOSIS).unlink()
        shutil.rmtree(out / FIGURES, ignore_errors=True)
    return write_diagnosis_report(diagnosis, out)


def claim_place(out: Path) -> None:
    """Raise ``ConfigError`` unless ``out`` is vacant or holds a diagnosis, which the next one takes the place of, and
    ``StorageError`` where the system refuses to make it."""
    require_vacant(out, "diagnosis", DIAGNOSIS, STUDY_DIAGNOSIS)
    check_place(out)


def diagnose_command(source: str, config: DiagnosisConfig) -> str:
    """The command that reproduces this diagnosis, with every setting that is not the default."""
    paths = {"plain": config.plain and str(config.plain), "image": list(map(str, config.image))}
    plain = as_plain(config) | paths
    command = command_of("diagnose", "DIAGNOSIS", plain, as_plain(DiagnosisConfig()))
    return command.replace("resnetlab diagnose", f"resnetlab diagnose {shlex.quote(source)}", 1)
