"""A diagnosis of one network, part by part: a run, weights from a file, or a network by name before any training.

Its folder holds ``diagnosis.json``, from which everything that is printed and drawn is made, and ``report.html``.
"""

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

from resnetlab.data.config import DecodeConfig
from resnetlab.environment import describe_environment
from resnetlab.errors import ConfigError, require, require_choice
from resnetlab.files import is_vacant
from resnetlab.readings import DIAGNOSIS, Diagnosis, Finding, IdentityReading, NetReading, Part, SignalReading
from resnetlab.recipe import Recipe, ShortcutChoice, fitted_config
from resnetlab.records import as_plain, write_record
from resnetlab.report.command import command_of
from resnetlab.soundings import (
    Progress,
    first_pictures,
    read_grid,
    read_identity,
    read_net,
    unwatched,
)
from resnetlab.study_readings import STUDY_DIAGNOSIS
from resnetlab.subject import Subject, find_control, find_subject, has_shortcuts
from resnetlab.train.config import Device

PARTS: tuple[Part, ...] = ("gradients", "residuals", "signal", "lesion")
"""What ``all`` stands for: every part that trains nothing."""


@dataclass(frozen=True, kw_only=True)
class DiagnosisConfig:
    """What is asked about a network, and by which pictures.

    Raises ``ConfigError`` for values that make no diagnosis.
    """

    what: tuple[Literal["all", "gradients", "residuals", "signal", "lesion", "identity"], ...] = ("all",)
    """Parts; all is each of them but identity, which trains."""
    data: str | None = None
    """Pictures, as for train; by default those of the run, else digits."""
    model: str | None = None
    """The network that a file of weights is of, by name."""
    shortcut: ShortcutChoice = "default"
    """Shortcut option, of a network by name or a file of weights."""
    options: dict[str, str] = field(default_factory=dict)
    """Further settings of such a network, such as norm layer."""
    checkpoint: Literal["last", "best"] = "last"
    """The last epoch of a run, or its best one."""
    plain: Path | None = None
    """The run of the plain twin on the same data, as a control."""
    seed: int = 0
    """Decides initial weights and which pictures are taken."""
    split_seed: int = 0
    """Decides the split of data that comes without one."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """How encoded pictures become arrays."""
    batch_size: int = 32
    """Training pictures in the one batch that gradients, residuals and signal are read from."""
    pictures: int = 2000
    """Test pictures, at most, that each lesion is measured on."""
    stage: int = 0
    """identity: the stage that gets more blocks, counted from 0."""
    added: int = 2
    """identity: how many."""
    epochs: int = 2
    """identity: epochs of training afterwards."""
    device: Device = "auto"
    """auto takes cuda where there is one."""

    def __post_init__(self) -> None:
        require(len(self.what) > 0, "what", self.what, "one or more parts")
        for part in self.what:
            require_choice("what", part, ("all", *PARTS, "identity"))
        require(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2: BN takes statistics over a batch")
        require(self.pictures >= 1, "pictures", self.pictures, "at least 1")
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require_choice("device", self.device, ("auto", "cpu", "cuda"))

    @property
    def recipe(self) -> Recipe:
        """The settings of a network that no run describes, but for its name."""
        return Recipe(
            shortcut=self.shortcut,
            options=self.options,
            split_seed=self.split_seed,
            decode=self.decode,
            seed=self.seed,
        )

    @property
    def parts(self) -> list[Part]:
        """What was asked for, each part once, in the order in which it is shown."""
        asked = {*self.what, *(PARTS if "all" in self.what else ())}
        return [part for part in (*PARTS, "identity") if part in asked]


def diagnose(source: str, config: DiagnosisConfig, progress: Progress | None = None) -> Diagnosis:
    """The diagnosis of ``source``: the folder of a run, a file of weights (with ``config.model``), or a network's name.

    Nothing of the source is changed.

    Raises ``ConfigError`` for an unknown name and for a part that was asked for by name and that the network cannot
    have, ``CheckpointError`` and ``DataError`` for what cannot be read.
    """
    import torch

    from resnetlab.train.prepare import pick_device

    started = perf_counter()
    device = pick_device(config.device)
    subject = find_subject(source, model=config.model, data=config.data, which=config.checkpoint, recipe=config.recipe)
    control = find_control(config.plain, config.checkpoint, subject) if config.plain else None
    parts, notes = possible_parts(config, subject)
    batch = first_pictures(subject.data, config.batch_size, config.seed, device)
    progress = progress or unwatched

    def read(one: Subject, wanted: list[Part]) -> NetReading:
        here = replace(one, net=one.net.to(device))
        return read_net(here, wanted, batch, seed=config.seed, pictures=config.pictures, progress=progress)

    net = read(subject, parts)
    initial = read(subject.before(), [part for part in parts if part != "lesion"]) if subject.run else None
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


def write_diagnosis(diagnosis: Diagnosis, out: Path) -> Path:
    """Write the record and its page to ``out``; the path of the page."""
    from resnetlab.report.diagnosis_page import write_diagnosis_report

    write_record(out / DIAGNOSIS, diagnosis)
    return write_diagnosis_report(diagnosis, out)


def claim_place(out: Path) -> None:
    """Raise ``ConfigError`` unless ``out`` is vacant or holds a diagnosis, which the next one takes the place of."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; give a folder for the diagnosis")
    if not is_vacant(out) and not any((out / record).is_file() for record in (DIAGNOSIS, STUDY_DIAGNOSIS)):
        raise ConfigError(f"{out} is not empty and holds no diagnosis; choose another folder")


def diagnose_command(source: str, config: DiagnosisConfig) -> str:
    """The command that makes this diagnosis, with every setting that is not the default."""
    plain = as_plain(config) | {"plain": None if config.plain is None else str(config.plain)}
    command = command_of("diagnose", "DIAGNOSIS", plain, as_plain(DiagnosisConfig()))
    return command.replace("resnetlab diagnose", f"resnetlab diagnose {shlex.quote(source)}", 1)


def possible_parts(config: DiagnosisConfig, subject: Subject) -> tuple[list[Part], list[str]]:
    """The parts that this network can have, and why others that ``all`` stands for were left out.

    Raises ``ConfigError`` for one that was asked for by name.
    """
    parts, notes = [], []
    for part in config.parts:
        reason = obstacle(part, subject)
        if reason is None:
            parts.append(part)
        elif part in config.what:
            raise ConfigError(f"{part} is not possible for {subject.recipe.model}: {reason}")
        elif part != "lesion" or subject.trained:
            notes.append(f"{part} left out: {reason}")
    return parts, notes


def obstacle(part: Part, subject: Subject) -> str | None:
    """Why the network cannot have that part; None where it can."""
    from resnetlab.diagnostics.lesion import movable_blocks
    from resnetlab.models.blocks import ResidualBlock

    if part == "gradients":
        return None
    if not any(isinstance(module, ResidualBlock) for module in subject.net.modules()):
        return "it has no blocks"
    if part == "lesion":
        if not subject.trained:
            return "it is not trained, so that no block is worth anything yet"
        if not movable_blocks(subject.net)[0]:
            return "none of its blocks can be dropped: each changes the shape of its input, or is alone"
    if part == "identity":
        if not subject.trained:
            return "it is not trained; train it first"
        if not has_shortcuts(subject.net):
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
    from resnetlab.diagnostics import explain

    makers = {
        "gradients": lambda: explain.explain_gradients(net, *others),
        "residuals": lambda: explain.explain_residuals(net, *others),
        "signal": lambda: explain.explain_signal(signal, own),
        "lesion": lambda: explain.explain_lesion(net, others[1]),
        "identity": lambda: explain.explain_identity(identity),  # type: ignore[arg-type]  # it is there where asked for
    }
    return [makers[part]() for part in parts]


def own_setting_of(subject: Subject) -> dict[str, str]:
    """The place of the network in the grid; nothing where it is not in it."""
    from resnetlab.diagnostics.grid import own_setting
    from resnetlab.models.config import ResidualConfig

    config = fitted_config(subject.recipe, subject.data)
    return own_setting(config) if isinstance(config, ResidualConfig) else {}
