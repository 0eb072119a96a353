"""``resnetlab failures``: which measure foretells that a run does not train, over the runs of studies."""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from resnetlab.cli.tables import print_table, show
from resnetlab.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Failures:
    """Ask of the runs of studies which measure of a start foretells that a run does not train.

    Growth of the gradients, and what --trace all measures. From records alone; several studies go together.
    """

    studies: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of studies, or their results.json."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the record as one JSON object on standard output, and nothing else."""

    def __call__(self) -> None:
        from resnetlab.core.serialize import as_plain
        from resnetlab.report.study.prediction import depth_table, predictor_table
        from resnetlab.study import read_results, read_study
        from resnetlab.study.prediction import predict_failure

        if not self.studies:
            raise ConfigError("name one study or more: resnetlab failures runs/study")
        found = predict_failure([read_results(one) if one.is_file() else read_study(one) for one in self.studies])
        if self.json:
            show(json.dumps(as_plain(found), allow_nan=False))
            return
        for table in (predictor_table(found), depth_table(found)):
            print_table(table)
            show("")
        show(found.rule)
