"""``resnetlab diagnose``: what depth does to a network, measured, judged and put on a page."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from resnetlab.diagnosis_config import DiagnosisConfig

if TYPE_CHECKING:
    from resnetlab.readings import Diagnosis

ROWS = 12
"""Rows of a long table that the terminal shows."""


@dataclass(frozen=True, kw_only=True)
class Diagnose:
    """Measure what depth does to a network: gradients, residuals, signal before training, lesions, paths, loss surface,
    and what its answers rest on.

    The folder gets diagnosis.json and report.html; a diagnosis that is there already is replaced.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|NAME|FILE")]
    """Folder of a run, a network's name such as cifar_resnet20, or a file of weights (with --model)."""
    config: Annotated[DiagnosisConfig, tyro.conf.OmitArgPrefixes]
    """What is asked."""
    out: Path = Path("runs/diagnosis")
    """Folder for the record and the page."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the record as one JSON object on standard output, and nothing else."""

    def __call__(self) -> None:
        from resnetlab.cli.progress import progress_of
        from resnetlab.diagnosis import claim_place, diagnose, write_diagnosis
        from resnetlab.records import as_plain

        claim_place(self.out)
        diagnosis = diagnose(self.source, self.config, progress_of)
        page = write_diagnosis(diagnosis, self.out)
        if self.json:
            print(json.dumps(as_plain(diagnosis), allow_nan=False))
        else:
            print_diagnosis(diagnosis, page)


def print_diagnosis(diagnosis: "Diagnosis", page: Path) -> None:
    """A short table for each part, what it says, and the verdicts last."""
    from resnetlab.cli.tables import print_table
    from resnetlab.report.diagnosis_page import diagnosis_title, verdict_lines
    from resnetlab.report.diagnosis_tables import diagnosis_tables

    tables = diagnosis_tables(diagnosis, most=ROWS)
    print(diagnosis_title(diagnosis))
    for note in diagnosis.notes:
        print(f"note: {note}")
    for finding in diagnosis.findings:
        print()
        print_table(tables[finding.part])
        print("\n".join(f"- {line}" for line in finding.sentences))
        print("\n".join(f"! {line}" for line in finding.advice), end="\n" if finding.advice else "")
    print()
    print("\n".join(verdict_lines(diagnosis)))
    print(f"\nreport, with the rules of the verdicts: {page}")
