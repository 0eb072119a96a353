"""What a run of a study keeps once it has ended: while it runs it has checkpoints as every run has, to resume from."""

import shutil
from pathlib import Path
from typing import Literal

from resnetlab.core.files import folder_exists, forget_file
from resnetlab.records.run import RunRecord
from resnetlab.train.recipe import Recipe

Keep = Literal["weights", "checkpoints", "none"]


def keep_of(record: RunRecord, recipe: Recipe, folder: Path, keep: Keep) -> None:
    """Leave in the ``folder`` of a run that has ended what ``keep`` says.

    ``weights`` leaves the network after the last epoch, and the best one where validation chose it, without the state
    of the optimizer; a moving average keeps the network behind it, without which it could not be restored.
    """
    from resnetlab.train.checkpoint import TRAINING
    from resnetlab.train.checkpoint_manager import BEST, LAST, TOP

    if keep == "checkpoints":
        return
    wanted = () if keep == "none" else (LAST, BEST) if record.chosen_by else (LAST,)
    for which in (LAST, BEST):
        for version in (f"{which}.next", which, f"{which}.previous"):
            if version not in wanted:
                shutil.rmtree(folder / version, ignore_errors=True)
        if which in wanted and not recipe.training.ema and folder_exists(folder / which):
            forget_file(folder / which, TRAINING)
    if keep == "none":
        shutil.rmtree(folder / TOP, ignore_errors=True)
