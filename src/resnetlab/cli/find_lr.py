"""``resnetlab find-lr``: which learning rate a recipe can take."""

from dataclasses import dataclass
from pathlib import Path

from resnetlab.cli.recipe_args import OpenRecipe
from resnetlab.cli.tables import print_columns, show
from resnetlab.records.lr_curve import LrCurve

RECORD = "lr.json"
ROWS = 15


@dataclass(frozen=True, kw_only=True)
class FindLr(OpenRecipe):
    """Train for some steps with a growing learning rate, and suggest one: where the loss falls fastest.

    RECIPE and flags are those of train; the rate and the schedule in them are not used.
    """

    steps: int = 100
    """Steps of the test."""
    lowest: float = 1e-6
    """The rate of the first step."""
    highest: float = 10.0
    """The rate of the last step."""
    out: Path = Path("runs/find-lr")
    """Folder for the record and the figure."""

    def __call__(self) -> None:
        from resnetlab.cli.progress import TrainingProgress
        from resnetlab.core.files import atomic_write
        from resnetlab.core.serialize import write_record
        from resnetlab.report.lr_curve import draw_rate_curve
        from resnetlab.train.lr_finder import find_lr
        from resnetlab.train.recipe import recipe_data, recipe_network

        recipe, chosen = self.settled()
        data = recipe_data(recipe)
        net, notes = recipe_network(recipe, data)
        with TrainingProgress() as progress:
            for note in [*chosen, *notes]:
                progress.on_note(note)
            curve = find_lr(
                net,
                data,
                recipe.training,
                seed=recipe.seed,
                steps=self.steps,
                lowest=self.lowest,
                highest=self.highest,
                callback=progress,
            )
        write_record(self.out / RECORD, curve)
        drawing = draw_rate_curve(curve)
        atomic_write(self.out / f"{drawing.name}.svg", drawing.svg)
        atomic_write(self.out / f"{drawing.name}.png", drawing.png)
        print_curve(curve)
        show("", f"record and figure: {self.out / RECORD}, {self.out / drawing.name}.png")


def print_curve(curve: LrCurve) -> None:
    """Some points of the curve, why the test ended, and the suggestion as a flag."""

    every = -(-len(curve.rates) // ROWS)
    rows = zip(curve.rates[::every], curve.losses[::every], curve.smoothed[::every], strict=True)
    print_columns(
        [("rate", "loss", "smoothed"), *((f"{rate:.2e}", f"{loss:.3f}", f"{mean:.3f}") for rate, loss, mean in rows)]
    )
    show("", f"ended after {len(curve.rates)} steps: {curve.ended}")
    if curve.steepest is None or curve.minimum is None:
        show("no suggestion: the loss never fell; check data and network, or begin with a lower --lowest")
        return
    show(f"the loss falls fastest at           --lr {curve.steepest:.2g}")
    show(f"a tenth of the rate of lowest loss  --lr {curve.minimum / 10:.2g}")
