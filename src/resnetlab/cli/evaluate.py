"""``resnetlab evaluate``: a trained network on its own test images, or on any set with its classes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from resnetlab.cli.tables import print_columns, print_metrics, show
from resnetlab.core.errors import ConfigError, DataError, first_line, printable
from resnetlab.core.serialize import as_plain
from resnetlab.train.folder import RECIPE

if TYPE_CHECKING:
    from resnetlab.deploy.evaluate import Answered, Evaluation

CONFUSED = 10
"""Pairs of classes that are shown as confused."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate a trained network: loss and error on its test images, or on validation images where it has no test.

    With another set, --split, --json or --out also the 95 % interval of its accuracy (Wilson), its calibration error,
    and the figures of each class.
    """

    network: tyro.conf.Positional[str]
    """Folder of a run or a bundle, or hub:owner/name."""
    checkpoint: Literal["last", "best"] = "last"
    """Of a run: the last epoch, or the best one by the validation images."""
    data: str | None = None
    """Where the images of the run are now, or another set with the same classes. By default the images of the run are
    looked for where they were when it began, and beside it."""
    split: Literal["train", "validation", "test"] | None = None
    """Images to evaluate on: by default test, or validation where there is no test; a folder without splits as a
    whole."""
    out: Path | None = None
    """File with a row for each image: path, label, answer, probability; .csv, .jsonl or .parquet."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the figures as one JSON object, and nothing else."""

    def __call__(self) -> None:
        from resnetlab.deploy.bundle import BUNDLE
        from resnetlab.deploy.evaluate import answers_on_own, evaluate_answers
        from resnetlab.deploy.rows import check_format
        from resnetlab.train.run import evaluate_restored, restored_network

        if self.out is not None:
            check_format(self.out)
        own = None
        if (Path(self.network) / RECIPE).is_file():
            try:
                own = restored_network(Path(self.network), self.checkpoint, self.data)
            except (DataError, ConfigError) as error:
                if self.data is None:
                    raise
                why = first_line(error)
        elif self.data is None and (self.network.startswith("hub:") or (Path(self.network) / BUNDLE).is_file()):
            raise ConfigError(f"{printable(self.network)} is a bundle, which has no images; say which with --data")
        elif self.data is None:
            raise DataError(f"{printable(self.network)} holds no run (it has no {RECIPE}) and no bundle (no {BUNDLE})")
        else:
            why = ""
        if own is not None and not (self.split or self.json or self.out):
            print_metrics(evaluate_restored(*own), own[1].reported_split)
            return
        answered = answers_on_own(own[0], own[1], self.split) if own is not None else self.on_another()
        if own is None and why and not self.json:
            show(
                f"note: these are not the images of the run ({why}), so they are evaluated as another set", errors=True
            )
        evaluation = evaluate_answers(answered, self.out)
        if self.json:
            show(json.dumps(as_plain(evaluation), allow_nan=False))
        else:
            print_evaluation(evaluation, self.out)

    def on_another(self) -> "Answered":
        """The answers on a set that is not that of the run."""
        from resnetlab.deploy.engines import open_predictor
        from resnetlab.deploy.evaluate import answers_on
        from resnetlab.deploy.predict import default_workers

        assert self.data is not None
        return answers_on(
            open_predictor(self.network, checkpoint=self.checkpoint), self.data, self.split, default_workers()
        )


def print_evaluation(found: "Evaluation", out: Path | None) -> None:
    """The figures in lines, those of each class in a table, and the pairs that are confused most."""
    head = f"{found.split or 'all images'} loss {found.loss:.4f}  error {1 - found.accuracy:.2%}"
    show(f"{head}  accuracy {found.accuracy:.2%} [{found.low:.2%}, {found.high:.2%}]  n {found.n}")
    if found.calibration_error is not None:
        show(f"expected calibration error {found.calibration_error:.4f}")
    for count, what in ((found.unreadable, "files could not be read"), (found.unanswered, "images have no answer")):
        if count:
            show(f"{count} {what}")
    if found.missing:
        show(f"note: no images of {', '.join(found.missing)}")
    rows = [
        [name, str(score.n), *("–" if value is None else f"{value:.2%}" for value in (score.recall, score.precision))]
        for name, score in zip(found.classes, found.scores, strict=True)
    ]
    print_columns([["class", "n", "recall", "precision"], *rows])
    wrong = sorted((entry for entry in found.confusion if entry[0] != entry[1]), key=lambda entry: -entry[2])[:CONFUSED]
    if wrong:
        pairs = [[found.classes[true], found.classes[answer], str(count)] for true, answer, count in wrong]
        print_columns([["true", "answer", "images"], *pairs])
    if out:
        show(f"rows in {out}")
