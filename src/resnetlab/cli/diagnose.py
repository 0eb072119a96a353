"""``resnetlab diagnose``: what depth does to a network, measured, judged and put on a page."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from resnetlab.cli.tables import print_table, show
from resnetlab.core.errors import ConfigError
from resnetlab.diagnostics.config import DiagnosisConfig
from resnetlab.study import STUDY

if TYPE_CHECKING:
    from resnetlab.records.diagnosis import Diagnosis
    from resnetlab.records.study_diagnosis import StudyDiagnosis
    from resnetlab.study import PlannedRun

ROWS = 12
"""Rows of a long table that the terminal shows."""


@dataclass(frozen=True, kw_only=True)
class Diagnose:
    """Measure what depth does to a network: gradients, residuals, signal before training, lesions, paths, loss surface,
    and what its answers rest on.

    The folder gets the record and report.html; a diagnosis that is there already is replaced. Of a study every run is
    diagnosed, with mean, standard deviation and paired differences over its seeds.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|STUDY|NAME|FILE")]
    """Folder of a run or a study, a network's name such as cifar_resnet20, or a file of weights (with --model)."""
    where: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """AXIS=VALUE,VALUE: of a study, only the runs with these values, such as depth=20,56. Once for each axis."""
    config: Annotated[DiagnosisConfig, tyro.conf.OmitArgPrefixes]
    """What is asked."""
    out: Path = Path("runs/diagnosis")
    """Folder for the record and the page."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the record as one JSON object on standard output, and nothing else."""

    def __call__(self) -> None:
        from resnetlab.diagnostics.diagnose import claim_place

        claim_place(self.out)
        if (Path(self.source) / STUDY).is_file():
            self.of_study()
        elif self.where:
            raise ConfigError(f"--where chooses runs of a study, and {self.source} is none; leave it out")
        else:
            self.of_network()

    def of_network(self) -> None:
        """The diagnosis of one network."""
        from resnetlab.cli.progress import progress_of
        from resnetlab.diagnostics.diagnose import diagnose_source, write_diagnosis

        diagnosis = diagnose_source(self.source, self.config, progress_of)
        page = write_diagnosis(diagnosis, self.out)
        if self.json:
            print_json(diagnosis)
        else:
            print_diagnosis(diagnosis, page)

    def of_study(self) -> None:
        """The diagnosis of every run of a study; each run is a line on standard error."""
        from resnetlab.cli.progress import progress_of
        from resnetlab.study.diagnosis import diagnose_study, read_where, write_study_diagnosis

        def tell(run: "PlannedRun", number: int, total: int) -> None:
            show(f"[{number}/{total}] {run.label}, seed {run.seed}", errors=True)

        diagnosis = diagnose_study(Path(self.source), self.config, read_where(self.where), progress_of, tell)
        page = write_study_diagnosis(diagnosis, self.out)
        if self.json:
            print_json(diagnosis)
        else:
            print_study_diagnosis(diagnosis, page)


def print_json(diagnosis: "Diagnosis | StudyDiagnosis") -> None:
    """The record as one JSON object."""
    from resnetlab.core.serialize import as_plain

    show(json.dumps(as_plain(diagnosis), allow_nan=False))


def print_study_diagnosis(diagnosis: "StudyDiagnosis", page: Path) -> None:
    """The measures over the seeds, their differences, and where the page is."""
    from resnetlab.report.study.diagnosis import difference_tables, measure_tables, verdict_table

    for line in diagnosis.left_out:
        show(f"left out: {line}")
    for table in (*measure_tables(diagnosis), verdict_table(diagnosis), *difference_tables(diagnosis)):
        print_table(table)
        show("")
    show(*diagnosis.rules)
    show("", f"report: {page}")


def print_diagnosis(diagnosis: "Diagnosis", page: Path) -> None:
    """A short table for each analysis, what it says, and the verdicts last."""
    from resnetlab.report.diagnosis.page import diagnosis_title, report_of, verdict_lines
    from resnetlab.report.table import thinned

    show(diagnosis_title(diagnosis))
    for note in diagnosis.notes:
        show(f"note: {note}")
    for finding in diagnosis.findings:
        show("")
        print_table(thinned(report_of(finding.analysis).tables(diagnosis)[0], ROWS))
        show(*(f"- {line}" for line in finding.sentences))
        show(*(f"! {line}" for line in finding.advice))
    show("")
    show(*verdict_lines(diagnosis))
    show("", f"report, with the rules of the verdicts: {page}")
