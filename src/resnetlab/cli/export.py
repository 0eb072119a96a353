"""``resnetlab export`` and ``verify``: what was trained as a bundle in other programs' formats, and whether it still
computes the same."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from resnetlab.cli.tables import print_columns, show
from resnetlab.core.errors import listed

FormatName = Literal["onnx", "openvino", "int8", "pt2", "triton", "timm", "web", "all"]


@dataclass(frozen=True, kw_only=True)
class Export:
    """Export a trained network as a bundle: with its classes, its preprocessing, and formats for other programs.

    Each format is compared with the trained network over test images, and nothing is kept of an export that does not
    compute the same (exit code 1). resnetlab verify compares again, anywhere.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|BUNDLE")]
    """Folder of a run or of a bundle, or hub:owner/name."""
    out: Path
    """Folder for the bundle: a new or empty one."""
    to: tuple[FormatName, ...] = ()
    """Formats: onnx; openvino; int8, with OpenVINO; pt2, for plain torch; triton, a model repository; timm, which
    transformers reads too; web, a page that classifies in the browser; all that this network can have."""
    golden: int = 32
    """Test images that the bundle keeps with their logits, for verify."""
    calibrate: int = 300
    """Training images that set the ranges of int8."""
    max_drop: float = 0.5
    """Points of accuracy that int8 may lose."""
    min_agreement: float = 97.0
    """Percent of the answers that int8 must share with the trained network."""
    checkpoint: Literal["best", "last"] = "best"
    """The best epoch of a run, or its last."""
    data: str | None = None
    """Where the images of the run are now; by default where they were when it began, or beside the run."""
    white: int | None = None
    """The value of a white pixel in the training images, for a run that does not say it."""

    def __call__(self) -> None:
        from resnetlab.cli.progress import progress_of
        from resnetlab.deploy.compare import Gates
        from resnetlab.deploy.export import ExportConfig, export

        gates = Gates(max_drop=self.max_drop, min_agreement=self.min_agreement)
        config = ExportConfig(to=self.to, golden=self.golden, calibrate=self.calibrate, gates=gates)
        with progress_of("exporting") as on_progress:
            bundle, verification = export(
                self.source,
                self.out,
                config,
                checkpoint=self.checkpoint,
                data=self.data,
                white=self.white,
                on_progress=on_progress,
            )
        rows = [check.cells("%") for check in verification.formats]
        print_columns([("format", "kB", "difference", "answers changed", "accuracy", "CPU ms an image"), *rows])
        show("", f"{bundle.model}, {len(bundle.classes)} classes ({listed(bundle.classes)}); bundle in {self.out}")


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Compare a bundle with what it was when it was exported: its files by their sums, its engines by golden images.

    Exit code 0, or 4 naming what differs.
    """

    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")]
    """Folder of a bundle."""
    engine: Literal["auto", "torch", "onnx", "openvino", "int8", "pt2"] = "auto"
    """auto takes torch and every format of the bundle whose library is installed."""

    def __call__(self) -> None:
        from resnetlab.deploy.verify import verify

        for found in verify(self.bundle, self.engine):
            if found.missing:
                show(f"{found.engine}: not tried: {found.missing}")
                continue
            show(
                f"{found.engine}: {found.n} of {found.n} golden images, largest difference {found.difference:.1e} of "
                f"the largest logit (at most {found.tolerance:.1e})"
            )
