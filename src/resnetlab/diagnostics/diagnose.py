"""A diagnosis of one network, part by part: a run, weights from a file, or a network by name before any training.

Its folder holds ``diagnosis.json``, from which everything that is printed and drawn is made, and ``report.html``.
"""

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from resnetlab.core.config import command_of
from resnetlab.core.environment import describe_environment
from resnetlab.core.errors import ConfigError
from resnetlab.core.files import check_place, require_vacant
from resnetlab.core.serialize import as_plain, write_record
from resnetlab.diagnostics.config import DiagnosisConfig
from resnetlab.diagnostics.load import Subject, find_control, find_subject, has_shortcuts
from resnetlab.diagnostics.soundings import Progress, first_images, read_grid, read_identity, read_net, unwatched
from resnetlab.diagnostics.surveying import chosen_images, read_cams, read_landscape, read_paths
from resnetlab.records.diagnosis import DIAGNOSIS, Diagnosis, Finding, IdentityReading, NetReading, Part, SignalReading
from resnetlab.records.study_diagnosis import STUDY_DIAGNOSIS
from resnetlab.train.recipe import fitted_config

if TYPE_CHECKING:
    from torch import Tensor

OF_TRAINED: tuple[Part, ...] = ("lesion", "landscape", "cam", "identity")
"""Parts that tell nothing of a network before training."""
UNTRAINED = "it is not trained; train it first, or give its weights"


def diagnose(source: str, config: DiagnosisConfig, progress: Progress | None = None) -> Diagnosis:
    """The diagnosis of ``source``: the folder of a run, a file of weights (with ``config.model``), or a network's name.

    Nothing of the source is changed.

    Raises ``ConfigError`` for an unknown name, for an image or layer that is not there, and for a part that was asked
    for by name and that the network cannot have, ``CheckpointError`` and ``DataError`` for what cannot be read.
    """
    import torch

    from resnetlab.train.prepare import pick_device

    started = perf_counter()
    device = pick_device(config.device)
    subject = find_subject(source, model=config.model, data=config.data, which=config.checkpoint, recipe=config.recipe)
    control = find_control(config.plain, config.checkpoint, subject) if config.plain else None
    parts, notes = possible_parts(config, subject)
    samples = chosen_images(subject.data, config.cam_images) if "cam" in parts else []
    batch = first_images(subject.data, config.batch_size, config.seed, device)
    progress = progress or unwatched

    def read(one: Subject, wanted: list[Part]) -> NetReading:
        return read_parts(replace(one, net=one.net.to(device)), wanted, batch, samples, config, progress)

    net = read(subject, parts)
    initial = read(subject.before(), [part for part in parts if part not in OF_TRAINED]) if subject.run else None
    twin = read(control, parts) if control else None
    signal = read_grid(subject, batch, progress) if "signal" in parts else []
    identity = None
    if "identity" in parts:
        identity = read_identity(
            subject, config.stage, config.added, epochs=config.epochs, seed=config.seed, progress=progress
        )
    return Diagnosis(
        source=source,
        command=diagnose_command(source, config),
        batch=len(batch[1]),
        net=net,
        initial=initial,
        control=twin,
        signal=signal,
        identity=identity,
        findings=make_findings(parts, net, (initial, twin), signal, own_setting_of(subject), identity),
        notes=[*subject.data.notes, *subject.notes, *notes],
        data=subject.data.fingerprint,
        environment=describe_environment(str(device), torch.get_num_threads()),
        seconds=perf_counter() - started,
    )


def read_parts(
    subject: Subject,
    parts: list[Part],
    batch: "tuple[Tensor, Tensor]",
    samples: Sequence[int],
    config: DiagnosisConfig,
    progress: Progress,
) -> NetReading:
    """What is read of one network; ``samples`` are the test images whose answers are explained."""
    seed = config.seed
    # First what may be refused, for a layer that is not there.
    cams = read_cams(subject, samples, config.cam_layer) if "cam" in parts else []
    reading = read_net(subject, parts, batch, seed=seed, images=config.images, progress=progress)
    paths = landscape = None
    if "paths" in parts:
        paths = read_paths(subject, *batch, draws=config.path_draws, seed=seed, progress=progress)
    if "landscape" in parts:
        landscape = read_landscape(
            subject,
            side=config.landscape_side,
            reach=config.landscape_reach,
            images=config.landscape_images,
            seed=seed,
            progress=progress,
        )
    return replace(reading, cams=cams, paths=paths, landscape=landscape)


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
    """The command that makes this diagnosis, with every setting that is not the default."""
    plain = as_plain(config) | {"plain": None if config.plain is None else str(config.plain)}
    command = command_of("diagnose", "DIAGNOSIS", plain, as_plain(DiagnosisConfig()))
    return command.replace("resnetlab diagnose", f"resnetlab diagnose {shlex.quote(source)}", 1)


def possible_parts(config: DiagnosisConfig, subject: Subject) -> tuple[list[Part], list[str]]:
    """The parts that this network can have, and why others that ``all`` stands for were left out.

    Raises ``ConfigError`` for one that was asked for by name.
    """
    parts: list[Part] = []
    left_out: dict[str, list[Part]] = {}
    for part in config.parts:
        reason = obstacle(part, subject)
        if reason is None:
            parts.append(part)
        elif part in config.what:
            raise ConfigError(f"{part} is not possible for {subject.recipe.model}: {reason}")
        else:
            left_out.setdefault(reason, []).append(part)
    return parts, [f"{', '.join(those)} left out: {reason}" for reason, those in left_out.items()]


def obstacle(part: Part, subject: Subject) -> str | None:
    """Why the network cannot have that part; None where it can."""
    import torch

    from resnetlab.diagnostics.cam import gives_maps
    from resnetlab.diagnostics.lesion import movable_blocks
    from resnetlab.models.blocks import ResidualBlock

    blocks = [module for module in subject.net.modules() if isinstance(module, ResidualBlock)]
    if part not in ("gradients", "landscape", "cam") and not blocks:
        return "it has no blocks"
    if part in OF_TRAINED and not subject.trained:
        return UNTRAINED
    if part == "lesion" and not movable_blocks(subject.net)[0]:
        return "none of its blocks can be dropped: each changes the shape of its input, or is alone"
    if part == "paths" and any(block.shortcut is None for block in blocks):
        return "without shortcuts there is one path through it, of full length"
    if part == "cam":
        image = torch.zeros(1, *subject.data.train.shape, device=next(subject.net.parameters()).device)
        if not gives_maps(subject.net, image):
            return "its last stage gives no maps that could be laid over an image"
    if part == "identity" and not has_shortcuts(subject.net):
        return "a plain block is no identity; give a net with shortcuts"
    return None


def make_findings(
    parts: list[Part],
    net: NetReading,
    others: tuple[NetReading | None, NetReading | None],
    signal: list[SignalReading],
    own: dict[str, str],
    identity: IdentityReading | None,
) -> list[Finding]:
    """Each part in plain language; ``others`` are the net at initialisation and its plain twin."""
    from resnetlab.diagnostics import explain, explain_surveys

    makers = {
        "gradients": lambda: explain.explain_gradients(net, *others),
        "residuals": lambda: explain.explain_residuals(net, *others),
        "signal": lambda: explain.explain_signal(signal, own),
        "lesion": lambda: explain.explain_lesion(net, others[1]),
        "paths": lambda: explain_surveys.explain_paths(net, others[0]),
        "landscape": lambda: explain_surveys.explain_landscape(net, others[1]),
        "cam": lambda: explain_surveys.explain_cam(net, others[1]),
        "identity": lambda: explain.explain_identity(identity),  # type: ignore[arg-type]  # it is there where asked for
    }
    return [makers[part]() for part in parts]


def own_setting_of(subject: Subject) -> dict[str, str]:
    """The place of the network in the grid; nothing where it is not in it."""
    from resnetlab.diagnostics.signal_grid import own_setting
    from resnetlab.models.config import ResidualConfig

    config = fitted_config(subject.recipe, subject.data)
    return own_setting(config) if isinstance(config, ResidualConfig) else {}
